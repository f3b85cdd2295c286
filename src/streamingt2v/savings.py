"""How the memory of a device is saved, at the cost of time: put on from outside, where weights are loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from .config import ModelConfig
from .errors import RequestError

Offload = Literal["none", "model", "group"]


@dataclass(frozen=True)
class Savings:
    """offload: where weights are while they do not work. "none": on the device; "model": in the machine's memory, network by network;
    "group": layer by layer, which needs the least and takes the longest. vae_slicing: frames are encoded and decoded one by one.
    vae_tiling: frames larger than a tile in tiles that overlap, which may leave faint differences where they meet.
    """

    offload: Offload = "none"
    vae_slicing: bool = False
    vae_tiling: bool = False

    def check(self, device: str, config: ModelConfig) -> None:
        """RequestError for what would have no effect on this device or with this model. No weights are needed."""
        if self.offload not in get_args(Offload):
            raise RequestError("offload", self.offload, f"must be one of {', '.join(get_args(Offload))}")
        if self.offload != "none" and device.partition(":")[0] == "cpu":
            raise RequestError("offload", self.offload, "on the cpu weights are where they work; leave it out, or choose another device")
        if config.backbone != "svd" or config.refine is not None or config.refine_by is not None:
            return
        for name in ("vae_slicing", "vae_tiling"):
            if getattr(self, name):
                fix = f"the decoder of {config.name!r} looks at neighbouring frames as a whole and can do neither; leave it out"
                raise RequestError(name, True, fix)


PLAIN = Savings()
"""Nothing is saved."""


def autoencoder_batch(height: int, width: int) -> int:
    """How many frames of that size go through an autoencoder at once: eight small ones fill the cores as well as two large ones do, and
    what they need meanwhile grows with their pixels.
    """
    return max(2, min(8, 2**15 // (height * width)))
