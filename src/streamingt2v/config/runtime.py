"""Options that save memory and time, applied where weights are loaded."""

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
    """offload: where weights are while they do not work. "none": on the device; "model": in the machine's memory, network by network;
    "group": layer by layer, which needs the least and takes the longest. vae_slicing: frames are encoded and decoded one by one.
    vae_tiling: frames larger than a tile in tiles that overlap, which may leave faint differences where they meet.
    engine: what computes the networks. "torch": as they are written; "compile": torch.compile's kernels, made for this machine when they
    are first needed, which takes minutes; "openvino": OpenVINO's, on a CPU, in float32.
    """

    offload: Offload = "none"
    vae_slicing: bool = False
    vae_tiling: bool = False
    engine: Engine = "torch"

    @classmethod
    def of(cls, options: object) -> Savings:
        """Return those of an object that has them under the same names."""
        return cls(**{field.name: getattr(options, field.name) for field in fields(cls)})

    def check(self, device: str, config: ModelConfig, dtype: str = "float32") -> None:
        """RequestError for what cannot be, or would have no effect, on this device, in this dtype, or with this model. No weights are
        needed.
        """
        on_cpu = device.partition(":")[0] == "cpu"
        if self.offload not in get_args(Offload):
            raise RequestError("offload", self.offload, f"must be one of {', '.join(get_args(Offload))}")
        if self.offload != "none" and on_cpu:
            raise RequestError(
                "offload",
                self.offload,
                "on the cpu weights are where they work; leave it out, or choose another device",
            )
        self._check_engine(on_cpu, dtype)
        if config.backbone != "svd" or config.refine is not None or config.refine_by is not None:
            return
        for name in ("vae_slicing", "vae_tiling"):
            if getattr(self, name):
                fix = f"the decoder of {config.name!r} looks at neighbouring frames as a whole and can do neither; leave it out"
                raise RequestError(name, True, fix)

    def _check_engine(self, on_cpu: bool, dtype: str) -> None:
        if self.engine not in get_args(Engine):
            raise RequestError("engine", self.engine, f"must be one of {', '.join(get_args(Engine))}")
        if self.engine != "torch" and self.offload != "none":
            raise RequestError(
                "engine", self.engine, "keeps weights where they work; leave out --offload, or take torch"
            )
        if self.engine != "openvino":
            return
        if not on_cpu:
            raise RequestError(
                "engine", self.engine, "computes on the cpu alone; take compile, or --device cpu"
            )
        if dtype != "float32":
            raise RequestError(
                "engine", self.engine, f"computes in float32, not in {dtype}; leave out --dtype"
            )
        if find_spec("openvino") is None:
            raise RequestError(
                "engine", self.engine, "needs a package more: pip install 'streamingt2v[openvino]'"
            )


CONVERTED = {"unet": 3, "cam": 1, "refiner": 1}
"""Copies of a network's weights in OpenVINO: one a shape, without CAM, with it, and frame by frame for time guidance."""

PLAIN = Savings()
"""Nothing is saved."""


def autoencoder_batch(height: int, width: int) -> int:
    """Return how many frames go through an autoencoder at once: eight small ones fill the cores as well as two large ones do, and
    what they need meanwhile grows with their pixels.
    """
    return max(2, min(8, 2**15 // (height * width)))
