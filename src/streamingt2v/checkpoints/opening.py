"""Load diffusers pipelines, for good or for the duration of a block."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import torch

from ..config.runtime import PLAIN, Savings
from ..config.values import read_json
from ..errors import ModelError, RequestError
from .adapting import adapt_pipeline, quantized
from .packages import explained
from .placing import offload_pipeline, save_in_vae
from .variants import INDEX, variant_of

Lora = Literal["no", "may", "must"]

ONLY_TILED = ("AutoencoderKLAllegro",)
"""Autoencoders that only decode with tiling."""


@contextmanager
def opened(
    folder: str,
    device: str | torch.device,
    dtype: torch.dtype,
    adapter: str | None = None,
    savings: Savings = PLAIN,
    lora: Lora = "no",
) -> Iterator[Any]:
    """Yield a pipeline and release its memory afterwards; errors as in `load_pipeline`."""
    pipeline = load_pipeline(folder, device, dtype, adapter, savings, lora)
    try:
        yield pipeline
    finally:
        for name in list(pipeline.components):  # let go here, whoever still holds the pipeline itself
            setattr(pipeline, name, None)


def load_pipeline(
    folder: str | Path,
    device: str | torch.device,
    dtype: torch.dtype,
    adapter: str | None = None,
    savings: Savings = PLAIN,
    lora: Lora = "no",
) -> Any:
    """Load a diffusers pipeline on a device in a dtype; raise ModelError if it does not load.

    lora: whether it must or may take the adapters of `savings`; a GGUF file is for a pipeline that may.
    """
    from diffusers import DiffusionPipeline

    quantizes = savings.quantize is not None and (savings.gguf is None or lora != "no")
    if quantizes and adapter is not None:
        raise RequestError("quantize", savings.quantize, f"does not work with a motion adapter ({adapter})")
    try:
        if adapter is not None:
            pipeline = _with_adapter(str(folder), adapter, dtype)
        else:
            options = _kept_as(Path(folder), dtype)
            if quantizes:
                options |= quantized(Path(folder), savings, torch.device(device), dtype)
            pipeline = DiffusionPipeline.from_pretrained(folder, local_files_only=True, **options)
    except RequestError:
        raise
    except (OSError, ValueError, RuntimeError, TypeError, ImportError) as error:
        raise ModelError(f"{folder}: the pipeline cannot be loaded: {explained(error)}") from error
    if lora != "no":
        with suppress(*([RequestError] if lora == "may" else [])):
            adapt_pipeline(pipeline, savings)
    pipeline.set_progress_bar_config(disable=True)
    if hasattr(pipeline, "vae"):
        save_in_vae(pipeline.vae, savings)
        if type(pipeline.vae).__name__ in ONLY_TILED:
            pipeline.vae.enable_tiling()
    if savings.offload == "none":
        return pipeline.to(device)
    return offload_pipeline(pipeline, torch.device(device), savings)


def _kept_as(folder: Path, dtype: torch.dtype) -> dict[str, Any]:
    """Return the arguments of `from_pretrained` that select data type and weight files."""
    variant = variant_of(folder, half=dtype != torch.float32)
    parts = read_json(folder / INDEX) if (folder / INDEX).is_file() else {}
    own = parts.get("vae")
    # Wan's autoencoder is made for float32, and its pipelines hand it latents in its own type
    mixed = dtype != torch.float32 and isinstance(own, list) and own[1] == "AutoencoderKLWan"
    types = {"vae": torch.float32, "default": dtype} if mixed else dtype
    return {"dtype": types, **({"variant": variant} if variant else {})}


def _with_adapter(folder: str, adapter: str, dtype: torch.dtype) -> Any:
    """Load AnimateDiff: text-to-image pipeline, motion adapter, published scheduler (method.md: Chunks)."""
    from diffusers import AnimateDiffPipeline, DDIMScheduler, MotionAdapter

    motion = MotionAdapter.from_pretrained(adapter, local_files_only=True, **_kept_as(Path(adapter), dtype))
    pipeline = AnimateDiffPipeline.from_pretrained(
        folder, motion_adapter=motion, local_files_only=True, **_kept_as(Path(folder), dtype)
    )
    changes = {"clip_sample": False, "timestep_spacing": "linspace"}
    changes |= {"beta_schedule": "linear", "steps_offset": 1}
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, **changes)
    return pipeline
