"""User requests, validated before any weights load."""

import dataclasses
import os
from dataclasses import dataclass
from typing import Any, Literal, Self

from .. import texts
from ..errors import RequestError
from .refine import FORMS, Form
from .values import check_types, reject_unknown

Preset = Literal["preview", "full"]
PRESETS: tuple[Preset, ...] = ("preview", "full")
SHORT_NAMES = {"num_frames": "frames", "num_inference_steps": "steps"}
"""Short argument names used by commands and tables."""

MOST_FRAMES, MOST_FPS, MOST_PIXELS, MOST_GUIDANCE, MOST_CHARACTERS = 2**31 - 1, 1000, 2**14, 1e6, 10_000
"""Upper limits; anything above is a typing mistake."""
MOST_TRANSITION = 64


@dataclass(frozen=True)
class Request:
    """One long video: all that its bytes depend on besides the weights. None: the model's default.

    prompt: text prompt. num_frames: exact number of frames, of new ones with `video`; None: endless. image:
    start image file. video: file to extend. refine: file for stage 3 alone (its first `num_frames` frames,
    None for all; needs preset "full"). base: folder of another pipeline that makes the first chunk, see
    `SeedConfig`. schedule: (frame, prompt) pairs, ascending; each replaces `prompt` from the first chunk that
    starts at or after its frame. preset: "preview" runs stages 1 and 2, "full" adds stage 3.
    num_inference_steps, guidance_scale: of stages 1 and 2, with `refine` of stage 3. form, strength: of stage
    3, see `RefineConfig`. fps: playback rate; at a multiple of the model's rate frames are interpolated, and
    `num_frames` still counts all. continue_by: continuation method of a pipeline model, a name of
    `external.continuing.WAYS`. transition_chunks: over how many chunks a new prompt replaces the one before,
    by interpolated embeddings; 1 for at once.

    Chunks of F frames, N = F - overlap of them new, start at 0, F, F + N, F + 2 N, ...; after an image that
    is frame 0 (see `ModelConfig.reads_image`) at 1, 1 + N, 1 + 2 N, ...; after a video, counted from its
    first new frame, at 0, N, 2 N, ... `resolve` rejects a schedule entry that no chunk would use.
    """

    prompt: str
    num_frames: int | None = 80
    seed: int = 33
    image: str | None = None
    video: str | None = None
    negative_prompt: str = ""
    schedule: tuple[tuple[int, str], ...] = ()
    preset: Preset = "preview"
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    width: int | None = None
    height: int | None = None
    fps: int | None = None
    base: str | None = None
    refine: str | None = None
    form: Form | None = None
    strength: float | None = None
    continue_by: str | None = None
    transition_chunks: int = 1

    def validate(self) -> Self:
        """Return the request; raise RequestError if it is invalid. Files are checked to exist, not read."""
        self._validate_texts()
        if texts.is_blank(self.prompt):
            fix = "must not be empty; describe the video, e.g. 'A cat running on the street'"
            raise RequestError("prompt", self.prompt, fix)
        if self.num_frames is not None and not 1 <= self.num_frames <= MOST_FRAMES:
            raise RequestError("num_frames", self.num_frames, f"must be 1 or more, and {MOST_FRAMES} at most")
        if not 0 <= self.seed < 2**63:
            raise RequestError("seed", self.seed, "must be 0 or more and below 2**63")
        if self.preset not in PRESETS:
            raise RequestError("preset", self.preset, f"must be one of {', '.join(PRESETS)}")
        if self.num_inference_steps is not None and not 1 <= self.num_inference_steps <= 1000:
            raise RequestError("num_inference_steps", self.num_inference_steps, "must be between 1 and 1000")
        if self.guidance_scale is not None and not 0 <= self.guidance_scale <= MOST_GUIDANCE:
            fix = f"must be a finite number, 0 or more, and {MOST_GUIDANCE:g} at most"
            raise RequestError("guidance_scale", self.guidance_scale, fix)
        files = self.files()
        if len(files) > 1:
            raise RequestError(
                next(iter(files)), next(iter(files.values())), f"give one of {', '.join(files)}, not more"
            )
        for name, path in files.items():
            if not os.path.isfile(path):  # noqa: PTH113 (Path raises for a name that is too long)
                raise RequestError(name, path, texts.why_no_file(path))
        self._validate_refining()
        for name, most in (("width", MOST_PIXELS), ("height", MOST_PIXELS), ("fps", MOST_FPS)):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= most:
                raise RequestError(name, value, f"must be 1 or more, and {most} at most")
        if not 1 <= self.transition_chunks <= MOST_TRANSITION:
            fix = f"must be between 1 and {MOST_TRANSITION}"
            raise RequestError("transition_chunks", self.transition_chunks, fix)
        _check_schedule(self.schedule, self.num_frames)
        return self

    def _validate_texts(self) -> None:
        """Raise RequestError for a prompt that is not valid text or too long."""
        prompts = [("prompt", self.prompt), ("negative_prompt", self.negative_prompt)]
        prompts += [("schedule", text) for _, text in self.schedule]
        for name, prompt in prompts:
            try:
                texts.check_text(prompt)
            except ValueError as error:
                raise RequestError(name, texts.shortened(prompt), str(error)) from None
            if len(prompt) > MOST_CHARACTERS:
                fix = f"has {len(prompt)} characters; at most {MOST_CHARACTERS} are allowed"
                raise RequestError(name, texts.shortened(prompt), fix)

    def _validate_refining(self) -> None:
        if self.preset != "full":
            for name in ("refine", "form", "strength"):
                if getattr(self, name) is not None:
                    raise RequestError(
                        name, getattr(self, name), f"preset {self.preset!r} has no stage 3; set full"
                    )
        if self.form not in (None, *FORMS):
            raise RequestError("form", self.form, f"must be one of {', '.join(FORMS)}")
        if self.strength is not None and not 0 < self.strength <= 1:
            raise RequestError("strength", self.strength, "must be above 0 and at most 1")

    def files(self) -> dict[str, str]:
        """Return the input files: "image", "video" or "refine" -> path."""
        return {
            name: path for name in ("image", "video", "refine") if (path := getattr(self, name)) is not None
        }

    def to_json(self) -> dict[str, Any]:
        """Return JSON values that `from_json` reads."""
        return dataclasses.asdict(self) | {"schedule": [list(entry) for entry in self.schedule]}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Read the values of `to_json`; raise RequestError for unknown names, TypeError for wrong types."""
        reject_unknown(cls, values, "request")
        check_types(cls, values)
        schedule = tuple((int(frame), str(prompt)) for frame, prompt in values.get("schedule", ()))
        return cls(**{**values, "schedule": schedule})

    def prompt_at(self, frame: int) -> str:
        """Return the prompt of a chunk that starts at `frame`: the latest schedule entry, else `prompt`."""
        return next((text for first, text in reversed(self.schedule) if first <= frame), self.prompt)


def _check_schedule(schedule: tuple[tuple[int, str], ...], frames: int | None) -> None:
    firsts = [first for first, _ in schedule]
    if any(first < 0 for first in firsts) or firsts != sorted(set(firsts)):
        raise RequestError("schedule", firsts, "frames must be 0 or more and strictly ascending")
    if frames is not None and firsts and firsts[-1] >= frames:
        fix = f"the video has {frames} frames, counted from 0, so this entry would never be used"
        raise RequestError("schedule", firsts[-1], fix)
    for first, prompt in schedule:
        if texts.is_blank(prompt):
            raise RequestError("schedule", first, "its prompt must not be empty")
