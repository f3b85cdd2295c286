"""Settings of stage 3, by a network of the model or by a diffusers pipeline."""

import dataclasses
from dataclasses import dataclass
from typing import Literal, Self, get_args, get_origin, get_type_hints

from ..errors import RequestError
from .values import Located, Resized, check_fields, check_sampling, require

Form = Literal["causal", "joint"]
FORMS: tuple[Form, ...] = ("causal", "joint")


@dataclass(frozen=True)
class RefineConfig(Resized):
    """Stage 3: window and overlap in frames, strength, steps, guidance, and how windows are joined.

    form: "causal": each step sees windows to the left only, and the first frames are ready after one window's
    work; "joint": windows on both sides, as published, and the first frames are ready after `steps` windows.
    blend: "random" cuts at each step; for comparison "linear" cross-fades or "none" replaces windows refined
    separately. With "random" only: law, see `samplers.blend.Law`; splice: whether "clean" predictions are
    joined (published code) or the "latents" after a step (paper; each window's solver then keeps its own
    history). shared_noise: noise belongs to frames, not windows. batch: predictions per network call;
    changing it may change the last bits. height, width: output size; None for `scale` times the model's. An
    overlap above half a window is allowed. Raise ModelError for invalid values.
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
        check_sampling("refine", self.steps, self.guidance_scale, self.guidance_rescale)
        self.check_size("refine")
        check_fields(
            "refine.",
            self,
            overlap=(0 <= self.overlap < self.frames, f"0 or more and below refine.frames={self.frames}"),
            strength=(0 < self.strength <= 1, "above 0 and at most 1"),
            shared_noise=(isinstance(self.shared_noise, bool), "true or false"),
            batch=(self.batch >= 1, "1 or more"),
        )
        for name, kind in get_type_hints(type(self)).items():
            choices = get_args(kind) if get_origin(kind) is Literal else ()
            fits = not choices or getattr(self, name) in choices
            require(fits, f"refine.{name}", getattr(self, name), f"one of {', '.join(choices)}")


@dataclass(frozen=True)
class RefineByConfig(Located, Resized):
    """Stage 3 by a diffusers pipeline: video-to-video with a strength, or I2VGen-XL.

    pipeline: its folder, relative to `model.json`. frames, overlap: of a window. height, width: output size;
    None for `scale` times the model's. strength, steps, guidance_scale: call arguments; None for the
    pipeline's defaults. seam: how windows join in their overlap: "steps", "cut" (as None; at a random frame)
    or "fade". I2VGen-XL only, None for 8 and 38: keyframes, the number of windows whose first frames are
    refined together beforehand; target_fps. Raise ModelError for invalid values.
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
        self.check_size("refine_by")
        some = int(self.steps * self.strength) >= 1
        check_fields(
            "refine_by.",
            self,
            overlap=(0 <= self.overlap < self.frames, f"0 or more and below refine_by.frames={self.frames}"),
            strength=(0 < self.strength <= 1, "above 0 and at most 1"),
            steps=(some, f"enough for one step at strength {self.strength}"),
            seam=(self.seam in (None, "steps", "cut", "fade"), "steps, cut or fade"),
        )
        for name in ("keyframes", "target_fps"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"refine_by.{name}", value, "1 or more")

    @property
    def keyframe_group(self) -> int:
        """Return the number of windows whose first frames are refined together."""
        return self.keyframes or 8

    def asked(self, strength: float | None, steps: int | None, guidance_scale: float | None) -> Self:
        """Return the settings with a request's values; raise RequestError if no step is left."""
        steps = self.steps if steps is None else steps
        least = self.strength if strength is None else strength
        if int(steps * least) < 1:
            name, value = ("num_inference_steps", steps) if strength is None else ("strength", strength)
            raise RequestError(
                name, value, f"no step of {steps} is left at strength {least}; set a higher one"
            )
        guidance_scale = self.guidance_scale if guidance_scale is None else guidance_scale
        return dataclasses.replace(self, strength=least, steps=steps, guidance_scale=guidance_scale)
