"""Settings of stage 3, by a network of the model's own or by a pipeline of diffusers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

from ..errors import RequestError
from .values import check_sampling, check_size, relative, require

Form = Literal["causal", "joint"]
FORMS: tuple[Form, ...] = ("causal", "joint")


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
        require(
            0 <= self.overlap < self.frames,
            "refine.overlap",
            self.overlap,
            f"0 or more and below refine.frames={self.frames}",
        )
        check_sampling("refine", self.steps, self.guidance_scale, self.guidance_rescale)
        require(0 < self.strength <= 1, "refine.strength", self.strength, "above 0 and at most 1")
        check_size("refine", self.scale, self.height, self.width)
        for name, kind in get_type_hints(type(self)).items():
            choices = get_args(kind) if get_origin(kind) is Literal else ()
            require(
                not choices or getattr(self, name) in choices,
                f"refine.{name}",
                getattr(self, name),
                f"one of {', '.join(choices)}",
            )
        require(
            isinstance(self.shared_noise, bool), "refine.shared_noise", self.shared_noise, "true or false"
        )
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
    seam: Literal["steps", "cut", "fade"] | None = None
    keyframes: int | None = None
    target_fps: int | None = None

    def __post_init__(self) -> None:
        require(
            0 <= self.overlap < self.frames,
            "refine_by.overlap",
            self.overlap,
            f"0 or more and below refine_by.frames={self.frames}",
        )
        check_size("refine_by", self.scale, self.height, self.width)
        require(0 < self.strength <= 1, "refine_by.strength", self.strength, "above 0 and at most 1")
        require(
            int(self.steps * self.strength) >= 1,
            "refine_by.steps",
            self.steps,
            f"enough for one step at strength {self.strength}",
        )
        require(
            self.seam in (None, "steps", "cut", "fade"), "refine_by.seam", self.seam, "steps, cut or fade"
        )
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

    def asked(
        self, strength: float | None, steps: int | None, guidance_scale: float | None
    ) -> RefineByConfig:
        """With what a request asks for, where it asks. RequestError where the steps are too few for the strength."""
        steps = self.steps if steps is None else steps
        least = self.strength if strength is None else strength
        if int(steps * least) < 1:
            name, value = ("num_inference_steps", steps) if strength is None else ("strength", strength)
            raise RequestError(
                name, value, f"no step of {steps} is left at strength {least}; set a higher one"
            )
        guidance_scale = self.guidance_scale if guidance_scale is None else guidance_scale
        return dataclasses.replace(self, strength=least, steps=steps, guidance_scale=guidance_scale)

    def within(self, folder: Path) -> RefineByConfig:
        """With an absolute path, for settings that were read in `folder`."""
        return dataclasses.replace(self, pipeline=str((folder / self.pipeline).absolute()))

    def relative_to(self, folder: Path) -> RefineByConfig:
        """The other way of `within`: for a file in `folder`."""
        return dataclasses.replace(self, pipeline=relative(self.pipeline, folder))
