"""Options that save memory and time, applied when weights are loaded."""

from __future__ import annotations

from dataclasses import dataclass, fields
from importlib.util import find_spec
from typing import Literal, get_args

from ..errors import RequestError
from . import ModelConfig

Offload = Literal["none", "model", "group"]
Engine = Literal["torch", "compile", "openvino"]


@dataclass(frozen=True)
class Savings:
    """Memory and speed options.

    offload: where idle weights are kept: "none" on the device; "model" in CPU memory, by network; "group" in
    CPU memory, by layer, which needs the least and is the slowest. vae_slicing: encode and decode frame by
    frame. vae_tiling: process large frames in overlapping tiles; faint differences may remain where they
    meet. engine: "torch" (eager), "compile" (torch.compile; minutes at first use), or "openvino" (CPU,
    float32).
    """

    offload: Offload = "none"
    vae_slicing: bool = False
    vae_tiling: bool = False
    engine: Engine = "torch"

    @classmethod
    def of(cls, options: object) -> Savings:
        """Return the options of an object with the same attribute names."""
        return cls(**{field.name: getattr(options, field.name) for field in fields(cls)})

    def check(self, device: str, config: ModelConfig, dtype: str = "float32") -> None:
        """Raise RequestError for options impossible or without effect on this device, dtype or model."""
        on_cpu = device.partition(":")[0] == "cpu"
        if self.offload not in get_args(Offload):
            raise RequestError("offload", self.offload, f"must be one of {', '.join(get_args(Offload))}")
        if self.offload != "none" and on_cpu:
            raise RequestError(
                "offload",
                self.offload,
                "has no effect on the cpu; leave it out, or choose another device",
            )
        self._check_engine(on_cpu, dtype)
        if config.backbone != "svd" or config.refine is not None or config.refine_by is not None:
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
        if find_spec("openvino") is None:
            raise RequestError("engine", self.engine, "needs a package: pip install 'streamingt2v[openvino]'")


CONVERTED = {"unet": 3, "cam": 1, "refiner": 1}
"""Copies of a network's weights in OpenVINO: one per input shape."""

PLAIN = Savings()
"""The defaults."""


def autoencoder_batch(height: int, width: int) -> int:
    """Return how many frames pass the autoencoder at once, fewer if they are large."""
    return max(2, min(8, 2**15 // (height * width)))
