"""Settings of external parts: diffusers pipelines and Stable Video Diffusion's network."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from ..errors import ModelError, RequestError
from .values import Located, check_fields, read_json, reject_unknown, require

ALIGN_YOUR_STEPS = (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002)
"""Noise levels that StreamingSVD's steps interpolate (method.md: StreamingSVD), for `ExtendConfig.sigmas`."""


@dataclass(frozen=True)
class SvdConfig:
    """Conditioning of StreamingSVD's network (method.md: StreamingSVD). Raise ModelError for invalid values.

    fps_id, motion_bucket: micro-conditioning of the trained network. augmentation: noise added to the image
    before encoding; augmentation_kind: "normal", or "uniform" as in the published code. first_guidance:
    guidance scale of a chunk's first frame, rising linearly to `extend.guidance_scale` at its last.
    """

    fps_id: int = 6
    motion_bucket: int = 127
    augmentation: float = 0.02
    augmentation_kind: Literal["normal", "uniform"] = "normal"
    first_guidance: float = 1.5

    def __post_init__(self) -> None:
        kinds = ("normal", "uniform")
        check_fields("svd.", self, augmentation_kind=(self.augmentation_kind in kinds, "normal or uniform"))
        for name in ("augmentation", "first_guidance"):
            value = getattr(self, name)
            require(math.isfinite(value) and value >= 0, f"svd.{name}", value, "finite, 0 or more")


@dataclass(frozen=True)
class ExtendByConfig(Located):
    """Stages 1 and 2 by a diffusers pipeline. Raise ModelError for invalid values.

    pipeline: its folder, relative to `model.json`. how: the continuation method, a name of
    `external.continuing.WAYS`; None for the best available. noise: "own" per chunk, or the "first" chunk's
    for all, which is calmer but repeats. anchor: how far a window's latents are pulled to the first chunk's
    mean and spread (0..1) where the method has no other long-term memory. steps, guidance_scale: None for the
    pipeline's defaults. image: whether it starts from an image. negative_prompt: whether one has an effect.
    multiple: divisor of the frame sides. free_size: the network makes other sizes than its own.
    """

    pipeline: str
    how: str | None = None
    image: Literal["no", "optional", "needed"] = "no"
    negative_prompt: bool = True
    multiple: int = 2
    free_size: bool = True
    noise: Literal["own", "first"] = "own"
    anchor: float = 0.5
    steps: int | None = None
    guidance_scale: float | None = None

    def __post_init__(self) -> None:
        scale = self.guidance_scale
        check_fields(
            "extend_by.",
            self,
            image=(self.image in ("no", "optional", "needed"), "no, optional or needed"),
            multiple=(self.multiple >= 2, "2 or more"),
            noise=(self.noise in ("own", "first"), "own or first"),
            anchor=(0 <= self.anchor <= 1, "between 0 and 1"),
            steps=(self.steps is None or 1 <= self.steps <= 1000, "between 1 and 1000"),
            guidance_scale=(scale is None or (math.isfinite(scale) and scale >= 0), "finite, 0 or more"),
        )


@dataclass(frozen=True)
class SeedConfig(Located):
    """Stage 1 by a diffusers pipeline, in `model.json` or in a `seed.json` beside the pipeline's files.

    pipeline: its folder, relative to the file; None: the model's own network makes the first chunk. adapter:
    folder of a motion adapter. picture: folder of a text-to-image pipeline, used if an image is needed and
    only text is given. frames, steps, guidance_scale, height, width: call arguments; None for the pipeline's
    defaults. image: whether the pipeline gets the request's image. fit: how an image of another shape fits
    the frame: "cover" crops, "pad" adds black bars, which are cropped from the result. resample: how frames
    are resized to the model's size.
    """

    PATHS = ("pipeline", "adapter", "picture")

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
        both = (self.height is None) == (self.width is None)
        check_fields(
            "seed.",
            self,
            fit=(self.fit in ("cover", "pad"), "cover or pad"),
            resample=(self.resample in ("antialias", "nearest"), "antialias or nearest"),
            height=(both, "given together with seed.width"),
        )
        for name in ("frames", "steps", "height", "width"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"seed.{name}", value, "1 or more")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a `seed.json`; raise ModelError for invalid JSON, names or values."""
        values = read_json(path)
        try:
            reject_unknown(cls, values, path.name)
            return cls(**values)
        except (TypeError, AttributeError, RequestError, ModelError) as error:
            raise ModelError(f"{path}: {error}") from error
