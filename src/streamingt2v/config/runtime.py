"""Options that save memory and time, applied when weights are loaded."""

import math
from dataclasses import asdict, dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Self, get_args

from ..errors import RequestError
from . import ModelConfig

Offload = Literal["none", "model", "group"]
Engine = Literal["torch", "compile", "openvino"]


@dataclass(frozen=True)
class Savings:
    """Options of loading: memory, speed, quantization and adapters.

    offload: where idle weights are kept: "none" on the device; "model" in CPU memory, by network; "group" in
    CPU memory, by layer, which needs the least and is the slowest. vae_slicing: encode and decode frame by
    frame. vae_tiling: process large frames in overlapping tiles; faint differences may remain where they
    meet. engine: "torch" (eager), "compile" (torch.compile; minutes at first use), or "openvino" (CPU,
    float32). quantize: "8bit", "4bit" or a GGUF file, for the denoiser and text encoders of diffusers
    pipelines; None: as loaded. lora: adapters "PATH[:SCALE]" for the networks that make chunks. Relative
    paths become absolute.
    """

    offload: Offload = "none"
    vae_slicing: bool = False
    vae_tiling: bool = False
    engine: Engine = "torch"
    quantize: str | None = None
    lora: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.gguf is not None:
            object.__setattr__(self, "quantize", str(self.gguf.absolute()))
        found = [parse_lora(text) for text in self.lora or ()]
        object.__setattr__(self, "lora", tuple(f"{path.absolute()}:{scale!r}" for path, scale in found))

    @classmethod
    def of(cls, options: object) -> Self:
        """Return the options of an object with the same attribute names."""
        return cls(**{field.name: getattr(options, field.name) for field in fields(cls)})

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self) | {"lora": list(self.lora)}

    @property
    def gguf(self) -> Path | None:
        """Return the GGUF file to load the denoiser from."""
        return Path(self.quantize) if self.quantize is not None and self.quantize.endswith(".gguf") else None

    @property
    def files(self) -> list[Path]:
        """Return the files of weights that these options add."""
        return [*([self.gguf] if self.gguf else []), *(parse_lora(text)[0] for text in self.lora)]

    def check(
        self,
        device: str,
        config: ModelConfig,
        dtype: str = "float32",
        pipelines: bool | None = None,
        here: bool = True,
    ) -> None:
        """Raise RequestError for options impossible or without effect on this device, dtype or model.

        pipelines: whether diffusers pipelines make any frames; None if unknown. here: the options are for
        this machine, which must have their packages.
        """
        on_cpu = device.partition(":")[0] == "cpu"
        if self.offload not in get_args(Offload):
            raise RequestError("offload", self.offload, f"must be one of {', '.join(get_args(Offload))}")
        if self.offload != "none" and on_cpu:
            fix = "has no effect on the cpu; leave it out, or choose another device"
            raise RequestError("offload", self.offload, fix)
        self._check_engine(on_cpu, dtype)
        self._check_quantize(on_cpu, pipelines)
        self._check_lora(config, pipelines)
        if here:
            self._check_packages(on_cpu)
        if config.backbone != "svd" or config.refines:
            return
        for name in ("vae_slicing", "vae_tiling"):
            if getattr(self, name):
                fix = (
                    f"the temporal decoder of {config.name!r} supports "
                    "neither slicing nor tiling; leave it out"
                )
                raise RequestError(name, True, fix)

    def _check_engine(self, on_cpu: bool, dtype: str) -> None:
        if self.engine not in get_args(Engine):
            raise RequestError("engine", self.engine, f"must be one of {', '.join(get_args(Engine))}")
        if self.engine != "torch" and self.offload != "none":
            raise RequestError(
                "engine", self.engine, "cannot be combined with --offload; leave one of them out"
            )
        if self.engine != "openvino":
            return
        if not on_cpu:
            raise RequestError(
                "engine", self.engine, "runs on the cpu only; use --engine compile, or --device cpu"
            )
        if dtype != "float32":
            raise RequestError(
                "engine", self.engine, f"computes in float32, not in {dtype}; leave out --dtype"
            )

    def _check_quantize(self, on_cpu: bool, pipelines: bool | None) -> None:
        if self.quantize is None:
            return
        if self.gguf is not None and not self.gguf.is_file():
            raise RequestError("quantize", self.quantize, "no such file")
        if self.gguf is None and self.quantize not in ("8bit", "4bit"):
            raise RequestError("quantize", self.quantize, "must be 8bit, 4bit or a file that ends in .gguf")
        if pipelines is False:
            fix = "is for diffusers pipelines, and this request uses none; leave it out, or give a --base"
            raise RequestError("quantize", self.quantize, fix)
        if self.engine == "openvino" or self.offload == "group":
            other = "--engine openvino" if self.engine == "openvino" else "--offload group"
            raise RequestError("quantize", self.quantize, f"cannot be combined with {other}; leave one out")
        if on_cpu and self.quantize == "4bit":
            raise RequestError("quantize", "4bit", "needs a GPU; use 8bit or a GGUF file")

    def _check_lora(self, config: ModelConfig, pipelines: bool | None) -> None:
        if not self.lora:
            return
        for text in self.lora:
            if not parse_lora(text)[0].is_file():
                raise RequestError(
                    "lora", text, "no such file; give a .safetensors file, as PATH or PATH:SCALE"
                )
        if pipelines is False and config.backbone != "modelscope":
            raise RequestError("lora", self.lora[0], f"model {config.name!r} takes none; leave it out")
        if self.engine == "openvino":
            raise RequestError("lora", self.lora[0], "cannot be combined with --engine openvino")

    def _check_packages(self, on_cpu: bool) -> None:
        quantizes = "gguf" if self.gguf else "torchao" if on_cpu else "bitsandbytes"
        for option, value, package, extra in (
            ("engine", self.engine if self.engine == "openvino" else None, "openvino", "openvino"),
            ("quantize", self.quantize, quantizes, "quantize"),
            ("lora", self.lora[0] if self.lora else None, "peft", "bases"),
        ):
            if value is not None and find_spec(package) is None:
                fix = f"needs the package {package}: pip install 'streamingt2v[{extra}]'"
                raise RequestError(option, value, fix)


def parse_lora(text: str) -> tuple[Path, float]:
    """Split "PATH[:SCALE]"; the scale is 1 by default. Raise RequestError if it is not finite."""
    path, colon, number = text.rpartition(":")
    try:
        scale = float(number) if colon else 1.0
    except ValueError:  # a colon within the path
        return Path(text), 1.0
    if not (path if colon else text):
        raise RequestError("lora", text, "names no file; give a .safetensors file, as PATH or PATH:SCALE")
    if not math.isfinite(scale):
        raise RequestError("lora", text, "the scale behind the colon must be a finite number")
    return Path(path if colon else text), scale


CONVERTED = {"unet": 3, "cam": 1, "refiner": 1}
"""Copies of a network's weights in OpenVINO: one per input shape."""

PLAIN = Savings()
"""The defaults."""


def autoencoder_batch(height: int, width: int) -> int:
    """Return how many frames pass the autoencoder at once, fewer if they are large."""
    return max(2, min(8, 2**15 // (height * width)))
