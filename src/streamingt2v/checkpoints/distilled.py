"""The distilled network of a model: its own network with small changes, which need few steps and no guidance.

Folder `fast` of a model folder: `unet.safetensors` and `cam.safetensors` hold the changes (see `lowrank`), `scheduler_config.json` the
sampler that they were trained for. The recipe `distill` makes it.
"""

from __future__ import annotations

import copy
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ..backbones.modelscope import ModelScopeBackbone
from ..models.lowrank import Tensors, merge
from .reading import read_tensors
from .writing import write_tensors

FAST = "fast"


class Distilled:
    """The changes of `base`'s network and of its CAM, and the scheduler that goes with them.

    alone: they are made in `base`'s own networks, not in copies: half the memory, but what they were before is no longer there.
    """

    def __init__(self, base: ModelScopeBackbone, scheduler: Any, unet: Tensors, cam: Tensors, *, alone: bool = False):
        self.base, self.scheduler, self.unet, self.cam, self.alone = base, scheduler, unet, cam, alone

    @cached_property
    def backbone(self) -> ModelScopeBackbone:
        """The distilled network, made when it is first asked for; all but network and CAM are those of `base`."""
        base = self.base
        unet, cam = (base.unet, base.cam) if self.alone else (copy.deepcopy(base.unet), copy.deepcopy(base.cam))
        merge(unet, self.unet)
        merge(cam, self.cam)
        return base if self.alone else type(base)(base.vae, unet, cam, base.image_encoder, base.image_tokens, base.device)

    def on(self, base: ModelScopeBackbone) -> Distilled:
        """The same changes of another backbone's networks, with what that does its own way."""
        assert not self.alone, "they are in networks that the other may share"
        return Distilled(base, self.scheduler, self.unet, self.cam)

    def save(self, folder: Path, dtype: torch.dtype = torch.float16) -> None:
        """Write the folder `fast`."""
        write_changes(folder, self.scheduler, self.unet, self.cam, dtype)


def write_changes(folder: Path, scheduler: Any, unet: Tensors, cam: Tensors, dtype: torch.dtype = torch.float16) -> None:
    """The folder `fast` of these changes; its files are replaced one by one."""
    folder.mkdir(parents=True, exist_ok=True)
    scheduler.save_pretrained(folder)
    for name, tensors in (("unet", unet), ("cam", cam)):
        write_tensors(folder / f"{name}.safetensors", {key: value.cpu() for key, value in tensors.items()}, dtype)


def read_changes(folder: Path) -> tuple[Tensors, Tensors]:
    """Those of the network and of CAM. ModelError if one is missing or damaged."""
    return read_tensors(folder / "unet.safetensors"), read_tensors(folder / "cam.safetensors")
