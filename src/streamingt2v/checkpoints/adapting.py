"""Quantize networks while they load, and load LoRA adapters into them, by diffusers' own means."""

import contextlib
from pathlib import Path
from typing import Any

import torch

from ..config.runtime import Savings, parse_lora
from ..config.values import read_json
from ..errors import RequestError
from .variants import DENOISERS, INDEX


def quantized(folder: Path, savings: Savings, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Return the arguments of a pipeline's `from_pretrained` that quantize its denoiser and text encoders.

    Raise RequestError if the pipeline has nothing to quantize or a GGUF file does not fit it.
    """
    index = read_json(folder / INDEX)
    parts = {name: value for name, value in index.items() if isinstance(value, list) and value[1]}
    denoisers = [name for name in DENOISERS if name in parts]
    if savings.gguf is not None:
        return {denoisers[0]: _from_gguf(savings.gguf, folder, denoisers, parts, dtype)}
    encoders = [
        name for name in parts if name.startswith("text_encoder") and parts[name][0] == "transformers"
    ]
    from diffusers import PipelineQuantizationConfig

    kinds = _kinds(savings.quantize, device, dtype)
    mapping = dict.fromkeys(denoisers, kinds[0]) | dict.fromkeys(encoders, kinds[1])
    return {"quantization_config": PipelineQuantizationConfig(quant_mapping=mapping)}


def _kinds(bits: str | None, device: torch.device, dtype: torch.dtype) -> tuple[Any, Any]:
    """Return the configurations for diffusers' and for transformers' networks."""
    import diffusers
    import transformers

    if device.type in ("cuda", "xpu"):
        four: dict[str, Any] = {
            "load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype
        }  # fmt: skip
        options = {"load_in_8bit": True} if bits == "8bit" else four
        return diffusers.BitsAndBytesConfig(**options), transformers.BitsAndBytesConfig(**options)
    from torchao.quantization import Int8WeightOnlyConfig

    return (
        diffusers.TorchAoConfig(Int8WeightOnlyConfig()),
        transformers.TorchAoConfig(Int8WeightOnlyConfig()),
    )


def _from_gguf(file: Path, folder: Path, denoisers: list[str], parts: dict[str, Any], dtype: Any) -> Any:
    import diffusers

    kind = getattr(diffusers, parts[denoisers[0]][1], None) if denoisers else None
    if kind is None or not hasattr(kind, "from_single_file"):
        raise RequestError("quantize", str(file), f"{folder} has no network that diffusers loads from GGUF")
    config = diffusers.GGUFQuantizationConfig(compute_dtype=dtype)
    try:
        return kind.from_single_file(
            str(file), config=str(folder), subfolder=denoisers[0], quantization_config=config, dtype=dtype,
            local_files_only=True,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, RuntimeError, AttributeError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RequestError("quantize", str(file), f"does not fit {folder}: {reason}") from error


def adapt_pipeline(pipeline: Any, savings: Savings) -> None:
    """Load the LoRA adapters into a pipeline; raise RequestError if one does not fit it."""
    name = type(pipeline).__name__
    networks = [getattr(pipeline, part, None) for part in DENOISERS]
    for number, text in enumerate(savings.lora):
        file, _ = parse_lora(text)
        takes = hasattr(pipeline, "load_lora_weights")
        if not takes or not any(hasattr(network, "load_lora_adapter") for network in networks):
            raise RequestError("lora", text, f"{name} takes no LoRA; leave it out")
        with _refusal(text, name):
            pipeline.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name=f"lora_{number}")
        _check_loaded(text, name, f"lora_{number}", networks)
    if savings.lora:
        scales = [parse_lora(text)[1] for text in savings.lora]
        pipeline.set_adapters([f"lora_{number}" for number in range(len(scales))], scales)


def adapt_unet(unet: Any, savings: Savings) -> bool:
    """Load the LoRA adapters into the network of stage 2; return False if they are for another network.

    Raise RequestError if only some of them fit.
    """
    from diffusers.loaders import StableDiffusionLoraLoaderMixin

    states: list[tuple[str, dict[str, torch.Tensor], Any]] = []
    modules = dict(unet.named_modules())
    for text in savings.lora:
        file, _ = parse_lora(text)
        with _refusal(text, "the network of stage 2"):
            state, alphas = StableDiffusionLoraLoaderMixin.lora_state_dict(
                str(file.parent), weight_name=file.name, unet_config=unet.config
            )
        names = {name.removeprefix("unet.").split(".lora")[0] for name in state if name.startswith("unet.")}
        if names and names <= modules.keys():
            states.append((text, state, alphas))
    if 0 < len(states) < len(savings.lora):
        strange = next(text for text in savings.lora if text not in [one for one, *_ in states])
        raise RequestError("lora", strange, "does not fit the network of stage 2; leave it out")
    for number, (text, state, alphas) in enumerate(states):
        with _refusal(text, "the network of stage 2"):
            unet.load_lora_adapter(state, prefix="unet", network_alphas=alphas, adapter_name=f"lora_{number}")
        _check_loaded(text, "the network of stage 2", f"lora_{number}", [unet])
    if states:
        unet.set_adapters([f"lora_{n}" for n in range(len(states))], [parse_lora(t)[1] for t, *_ in states])
        unet.requires_grad_(False)
    return bool(states)


def _check_loaded(text: str, name: str, adapter: str, networks: list[Any]) -> None:
    """Raise RequestError if diffusers found nothing for the networks, which it only warns of."""
    if not any(adapter in getattr(network, "peft_config", {}) for network in networks):
        raise RequestError("lora", text, f"has no weights for {name}; choose another file")


@contextlib.contextmanager
def _refusal(text: str, name: str) -> Any:
    try:
        yield
    except (
        OSError,
        ValueError,
        KeyError,
        RuntimeError,
        AttributeError,
        TypeError,
    ) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RequestError("lora", text, f"does not fit {name}: {reason}") from error
