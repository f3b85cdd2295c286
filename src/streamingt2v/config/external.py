"""Settings of what comes from others: a pipeline of diffusers that makes the first chunk, Stable Video Diffusion's network."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import ModelError, RequestError
from .values import read_json, reject_unknown, relative, require

ALIGN_YOUR_STEPS = (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002)
"""Noise levels that StreamingSVD's steps are laid through (method.md: StreamingSVD), for `ExtendConfig.sigmas`."""


@dataclass(frozen=True)
class SvdConfig:
    """What StreamingSVD's network is told besides the picture (method.md: StreamingSVD). ModelError for values that make no sense.

    fps_id, motion_bucket: numbers it was trained with. augmentation: noise put on the picture before it is encoded, 0 or more;
    augmentation_kind: "normal", or "uniform" as the published code has it. first_guidance: guidance of a chunk's first frame; it rises
    evenly to `extend.guidance_scale` at its last.
    """

    fps_id: int = 6
    motion_bucket: int = 127
    augmentation: float = 0.02
    augmentation_kind: Literal["normal", "uniform"] = "normal"
    first_guidance: float = 1.5

    def __post_init__(self) -> None:
        require(
            self.augmentation_kind in ("normal", "uniform"),
            "svd.augmentation_kind",
            self.augmentation_kind,
            "normal or uniform",
        )
        for name in ("augmentation", "first_guidance"):
            value = getattr(self, name)
            require(math.isfinite(value) and value >= 0, f"svd.{name}", value, "finite, 0 or more")


@dataclass(frozen=True)
class ExtendByConfig:
    """Stages 1 and 2 by a pipeline of diffusers. ModelError for values that make no sense.

    pipeline: its folder, relative to `model.json`. how: the way in which it goes on, a name of `external.continuing.WAYS`; None
    for the best that it has. noise: "own" for every chunk, or the "first" chunk's for all, which is calmer and repeats itself.
    anchor: how far a window's latents are pulled to the first chunk's mean and spread (0..1), where the way has no other long
    memory. steps, guidance_scale: None for the pipeline's own. image: whether it starts from one. negative_prompt: whether one has
    an effect. multiple: what the sides of its frames must be multiples of.
    """

    pipeline: str
    how: str | None = None
    image: Literal["no", "optional", "needed"] = "no"
    negative_prompt: bool = True
    multiple: int = 2
    noise: Literal["own", "first"] = "own"
    anchor: float = 0.5
    steps: int | None = None
    guidance_scale: float | None = None

    def __post_init__(self) -> None:
        require(
            self.image in ("no", "optional", "needed"),
            "extend_by.image",
            self.image,
            "no, optional or needed",
        )
        require(self.multiple >= 2, "extend_by.multiple", self.multiple, "2 or more")
        require(self.noise in ("own", "first"), "extend_by.noise", self.noise, "own or first")
        require(0 <= self.anchor <= 1, "extend_by.anchor", self.anchor, "between 0 and 1")
        require(
            self.steps is None or 1 <= self.steps <= 1000, "extend_by.steps", self.steps, "between 1 and 1000"
        )
        scale = self.guidance_scale
        sensible = scale is None or (math.isfinite(scale) and scale >= 0)
        require(sensible, "extend_by.guidance_scale", scale, "finite, 0 or more")

    def within(self, folder: Path) -> ExtendByConfig:
        """Return it with an absolute path, for settings that were read in `folder`."""
        return dataclasses.replace(self, pipeline=str((folder / self.pipeline).absolute()))

    def relative_to(self, folder: Path) -> ExtendByConfig:
        """Return it with a path relative to `folder`, for a file there."""
        return dataclasses.replace(self, pipeline=relative(self.pipeline, folder))


@dataclass(frozen=True)
class SeedConfig:
    """Stage 1 by a pipeline of diffusers: in `model.json`, or in a `seed.json` beside the pipeline's own files. None: the pipeline's own.

    pipeline: its folder, relative to the file's; None: the model's own network makes the first chunk. adapter: folder of a motion
    adapter for it. picture: folder of a text-to-image pipeline that makes the picture where one is needed and only text is given.
    frames, steps, guidance_scale, height, width: what it is called with. image: whether it is given the request's picture. fit: how a
    picture of another shape gets into its frame, which the model's frames are cut out of again: "cover" cuts the picture off, "pad" puts
    black bars beside it. resample: how frames come to the model's size.
    """

    pipeline: str | None = None
    adapter: str | None = None
    picture: str | None = None
    frames: int | None = None
    steps: int | None = None
    guidance_scale: float | None = None
    height: int | None = None
    width: int | None = None
    image: bool | None = None
    fit: Literal["cover", "pad"] = "cover"
    resample: Literal["antialias", "nearest"] = "antialias"

    def __post_init__(self) -> None:
        require(self.fit in ("cover", "pad"), "seed.fit", self.fit, "cover or pad")
        require(
            self.resample in ("antialias", "nearest"), "seed.resample", self.resample, "antialias or nearest"
        )
        require(
            (self.height is None) == (self.width is None),
            "seed.height",
            self.height,
            "given together with seed.width",
        )
        for name in ("frames", "steps", "height", "width"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"seed.{name}", value, "1 or more")

    def within(self, folder: Path) -> SeedConfig:
        """With absolute paths, for settings that were read in `folder`."""
        pipeline, adapter, picture = (
            path and str((folder / path).absolute()) for path in (self.pipeline, self.adapter, self.picture)
        )
        return dataclasses.replace(self, pipeline=pipeline, adapter=adapter, picture=picture)

    def relative_to(self, folder: Path) -> SeedConfig:
        """The other way of `within`: for a file in `folder`."""
        pipeline, adapter, picture = (
            path and relative(path, folder) for path in (self.pipeline, self.adapter, self.picture)
        )
        return dataclasses.replace(self, pipeline=pipeline, adapter=adapter, picture=picture)

    @classmethod
    def load(cls, path: Path) -> SeedConfig:
        """Read a `seed.json`; ModelError if it is broken, or holds unknown names or values that make no sense."""
        values = read_json(path)
        try:
            reject_unknown(cls, values, path.name)
            return cls(**values)
        except (TypeError, AttributeError, RequestError, ModelError) as error:
            raise ModelError(f"{path}: {error}") from error
