"""Settings of stage 3, and how a model works with networks besides its own: Stable Video Diffusion's in stage 2, any pipeline of
diffusers in stages 1 and 3, and its own distilled to fewer steps.

Frozen dataclasses, parts of `config.ModelConfig`, and how such parts are read and checked.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ..errors import ModelError, RequestError

Form = Literal["causal", "joint"]
FORMS: tuple[Form, ...] = ("causal", "joint")
ALIGN_YOUR_STEPS = (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002)
"""Noise levels that StreamingSVD's steps are laid through (spec 9), for `ExtendConfig.sigmas`."""


@dataclass(frozen=True)
class SvdConfig:
    """What StreamingSVD's network is told besides the picture (spec 9). ModelError for values that make no sense.

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
        require(self.augmentation_kind in ("normal", "uniform"), "svd.augmentation_kind", self.augmentation_kind, "normal or uniform")
        for name in ("augmentation", "first_guidance"):
            value = getattr(self, name)
            require(math.isfinite(value) and value >= 0, f"svd.{name}", value, "finite, 0 or more")


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
        require(self.resample in ("antialias", "nearest"), "seed.resample", self.resample, "antialias or nearest")
        require((self.height is None) == (self.width is None), "seed.height", self.height, "given together with seed.width")
        for name in ("frames", "steps", "height", "width"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"seed.{name}", value, "1 or more")

    def within(self, folder: Path) -> SeedConfig:
        """With absolute paths, for settings that were read in `folder`."""
        pipeline, adapter, picture = (path and str((folder / path).absolute()) for path in (self.pipeline, self.adapter, self.picture))
        return dataclasses.replace(self, pipeline=pipeline, adapter=adapter, picture=picture)

    def relative_to(self, folder: Path) -> SeedConfig:
        """The other way of `within`: for a file in `folder`."""
        pipeline, adapter, picture = (path and _relative(path, folder) for path in (self.pipeline, self.adapter, self.picture))
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


@dataclass(frozen=True)
class RefineConfig:
    """Stage 3: window and overlap in frames, share of the noise schedule that is redone, steps, guidance, and how windows are joined.

    form: "causal": at each step a window hears its left neighbours, and the first frames are there after one window's work; "joint": also
    the right ones, as published, and the first frames are there once `steps` windows have come in. A live stream cannot wait for that,
    hence the default. blend: "random" cuts at each step, or, to compare with, a "linear" cross-fade of windows refined apart, or
    "none": apart, the later window replacing the earlier. Of "random" alone: law, see `samplers.blend.Law`, and splice, what
    is cut and joined, the "clean" predictions (as coded) or the "latents" after a step (as in the paper; a window's solver then
    remembers its own predictions). shared_noise: noise belongs to frames, not to windows. batch: predictions that are made in one call
    of the network; another number may change the last bits. height, width: to which size; None for `scale` times that of the model.

    An overlap of more than half a window puts frames into three windows or more, which is allowed.
    ModelError for values that make no sense.
    """

    frames: int = 24
    overlap: int = 8
    strength: float = 0.6
    steps: int = 30
    guidance_scale: float = 7.5
    guidance_rescale: float = 0.2
    scale: int = 2
    height: int | None = None
    width: int | None = None
    form: Form = "causal"
    blend: Literal["random", "linear", "none"] = "random"
    law: Literal["code", "paper"] = "paper"
    splice: Literal["clean", "latents"] = "clean"
    shared_noise: bool = True
    batch: int = 1

    def __post_init__(self) -> None:
        require(0 <= self.overlap < self.frames, "refine.overlap", self.overlap, f"0 or more and below refine.frames={self.frames}")
        check_sampling("refine", self.steps, self.guidance_scale, self.guidance_rescale)
        require(0 < self.strength <= 1, "refine.strength", self.strength, "above 0 and at most 1")
        _check_size("refine", self.scale, self.height, self.width)
        for name, kind in get_type_hints(type(self)).items():
            choices = get_args(kind) if get_origin(kind) is Literal else ()
            require(not choices or getattr(self, name) in choices, f"refine.{name}", getattr(self, name), f"one of {', '.join(choices)}")
        require(isinstance(self.shared_noise, bool), "refine.shared_noise", self.shared_noise, "true or false")
        require(self.batch >= 1, "refine.batch", self.batch, "1 or more")

    def size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) that frames of a size are refined to."""
        if self.height is not None and self.width is not None:
            return self.height, self.width
        return self.scale * height, self.scale * width


@dataclass(frozen=True)
class RefineByConfig:
    """Stage 3 by a pipeline of diffusers: from video to video with a strength, or I2VGen-XL. ModelError for values that make no sense.

    pipeline: its folder, relative to `model.json`. frames, overlap: of a window, and of it with its neighbour. height, width: to which
    size; None for `scale` times that of the model. strength, steps, guidance_scale: what it is called with; None: the pipeline's own.
    seam: how windows of video to video join in their overlap: "cut", as None, goes over at a frame drawn at random, "fade" mixes them, more
    of the later one by and by. Of I2VGen-XL alone, None for 8 and 38: keyframes, of how many windows the first frames are redrawn together
    before; target_fps, the rate that it is told.
    """

    pipeline: str
    frames: int = 16
    overlap: int = 4
    scale: int = 2
    height: int | None = None
    width: int | None = None
    strength: float = 0.6
    steps: int = 30
    guidance_scale: float | None = None
    seam: Literal["cut", "fade"] | None = None
    keyframes: int | None = None
    target_fps: int | None = None

    def __post_init__(self) -> None:
        require(0 <= self.overlap < self.frames, "refine_by.overlap", self.overlap, f"0 or more and below refine_by.frames={self.frames}")
        _check_size("refine_by", self.scale, self.height, self.width)
        require(0 < self.strength <= 1, "refine_by.strength", self.strength, "above 0 and at most 1")
        require(int(self.steps * self.strength) >= 1, "refine_by.steps", self.steps, f"enough for one step at strength {self.strength}")
        require(self.seam in (None, "cut", "fade"), "refine_by.seam", self.seam, "cut or fade")
        for name in ("keyframes", "target_fps"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"refine_by.{name}", value, "1 or more")

    @property
    def keyframe_group(self) -> int:
        """Of how many windows the first frames are redrawn together."""
        return self.keyframes or 8

    def size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) that frames of a size are refined to."""
        if self.height is not None and self.width is not None:
            return self.height, self.width
        return self.scale * height, self.scale * width

    def asked(self, strength: float | None, steps: int | None, guidance_scale: float | None) -> RefineByConfig:
        """With what a request asks for, where it asks. RequestError where the steps are too few for the strength."""
        steps = self.steps if steps is None else steps
        least = self.strength if strength is None else strength
        if int(steps * least) < 1:
            name, value = ("steps", steps) if strength is None else ("strength", strength)
            raise RequestError(name, value, f"no step of {steps} is left at strength {least}; set a higher one")
        guidance_scale = self.guidance_scale if guidance_scale is None else guidance_scale
        return dataclasses.replace(self, strength=least, steps=steps, guidance_scale=guidance_scale)

    def within(self, folder: Path) -> RefineByConfig:
        """With an absolute path, for settings that were read in `folder`."""
        return dataclasses.replace(self, pipeline=str((folder / self.pipeline).absolute()))

    def relative_to(self, folder: Path) -> RefineByConfig:
        """The other way of `within`: for a file in `folder`."""
        return dataclasses.replace(self, pipeline=_relative(self.pipeline, folder))


def _relative(path: str, folder: Path) -> str:
    """A path as seen from a folder; on Windows an absolute one where it lies on another drive."""
    try:
        return Path(os.path.relpath(path, folder.absolute())).as_posix()
    except ValueError:
        return path


def _check_size(stage: str, scale: int, height: int | None, width: int | None) -> None:
    require(scale >= 1, f"{stage}.scale", scale, "1 or more")
    require((height is None) == (width is None), f"{stage}.height", height, f"given together with {stage}.width")
    for name, side in (("height", height), ("width", width)):
        require(side is None or (side >= 2 and side % 2 == 0), f"{stage}.{name}", side, "an even number, 2 or more")


def check_sampling(stage: str, steps: int, guidance_scale: float, guidance_rescale: float) -> None:
    """ModelError for values of a stage that make no sense."""
    require(1 <= steps <= 1000, f"{stage}.steps", steps, "between 1 and 1000")
    require(math.isfinite(guidance_scale) and guidance_scale >= 0, f"{stage}.guidance_scale", guidance_scale, "finite, 0 or more")
    require(0 <= guidance_rescale <= 1, f"{stage}.guidance_rescale", guidance_rescale, "between 0 and 1")


@dataclass(frozen=True)
class FastConfig:
    """A model's distilled network, in its folder `fast`: `steps` a chunk, guidance in its weights. ModelError for other values."""

    steps: int = 4

    def __post_init__(self) -> None:
        require(1 <= self.steps <= 1000, "fast.steps", self.steps, "between 1 and 1000")


def require(holds: bool, name: str, value: object, what: str) -> None:
    """ModelError unless it holds that the value called `name` is `what`."""
    if not holds:
        raise ModelError(f"{name}={value!r} must be {what}")


def read_json(path: Path) -> Any:
    """What a JSON file of a model holds; ModelError with its name if it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read as JSON: {error}") from error


def reject_unknown(cls: type, values: dict[str, Any], where: str) -> None:
    """RequestError for names that the dataclass `cls` has no field of."""
    unknown = sorted(set(values) - {f.name for f in dataclasses.fields(cls)})
    if unknown:
        raise RequestError(where, unknown, "unknown names")
