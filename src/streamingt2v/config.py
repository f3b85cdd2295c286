"""What a user asks for (`Request`) and how a model works (`ModelConfig`): frozen dataclasses, nothing heavy imported.

A `Request` is checked at the door (`Request.validate`), before any weights load. `ModelConfig` is what the file
`model.json` of a model folder holds; a request's `None` means the model's own default.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from .errors import ModelError, RequestError

Preset = Literal["preview", "full"]
PRESETS: tuple[Preset, ...] = ("preview", "full")
EMBEDDED = ("tiny",)
"""Models that come with the package."""


@dataclass(frozen=True)
class Request:
    """One long video. Everything that its bytes depend on, besides the model's weights.

    prompt: what is to be seen. frames: how many frames (with `video`: how many new ones), exactly; None means without end.
    image: a picture to start from. video: a video to go on with. schedule: (first frame, prompt) pairs, ascending, that
    take over from `prompt` at their frame. preset: "preview" runs stages 1-2, "full" refines as well.
    steps, guidance_scale, width, height, fps: None for the model's own.
    """

    prompt: str
    frames: int | None = 80
    seed: int = 33
    image: str | None = None
    video: str | None = None
    negative_prompt: str = ""
    schedule: tuple[tuple[int, str], ...] = ()
    preset: Preset = "preview"
    steps: int | None = None
    guidance_scale: float | None = None
    width: int | None = None
    height: int | None = None
    fps: int | None = None

    def validate(self) -> Request:
        """Itself, or RequestError. Files are only checked to exist; their content is checked when they are opened."""
        if not self.prompt.strip():
            raise RequestError("prompt", self.prompt, "must not be empty; say what is to be seen, e.g. 'A cat running on the street'")
        if self.frames is not None and self.frames < 1:
            raise RequestError("frames", self.frames, "must be 1 or more")
        if not 0 <= self.seed < 2**63:
            raise RequestError("seed", self.seed, "must be 0 or more and below 2**63")
        if self.preset not in PRESETS:
            raise RequestError("preset", self.preset, f"must be one of {', '.join(PRESETS)}")
        if self.steps is not None and not 1 <= self.steps <= 1000:
            raise RequestError("steps", self.steps, "must be between 1 and 1000")
        if self.guidance_scale is not None and not (math.isfinite(self.guidance_scale) and self.guidance_scale >= 0):
            raise RequestError("guidance_scale", self.guidance_scale, "must be a finite number, 0 or more")
        if self.image is not None and self.video is not None:
            raise RequestError("image", self.image, "give an image or a video to start from, not both")
        for name in ("image", "video"):
            path = getattr(self, name)
            if path is not None and not Path(path).is_file():
                raise RequestError(name, path, "no such file")
        for name in ("width", "height", "fps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise RequestError(name, value, "must be 1 or more")
        _check_schedule(self.schedule, self.frames)
        return self

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` reads them back."""
        return dataclasses.asdict(self) | {"schedule": [list(entry) for entry in self.schedule]}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Request:
        """The request of `to_json`; unknown names are an error."""
        _reject_unknown(cls, values, "request")
        schedule = tuple((int(frame), str(prompt)) for frame, prompt in values.get("schedule", ()))
        return cls(**{**values, "schedule": schedule})

    def prompt_at(self, frame: int) -> str:
        """The prompt in force at a frame: the last schedule entry at or before it, else `prompt`."""
        return next((text for first, text in reversed(self.schedule) if first <= frame), self.prompt)


def _check_schedule(schedule: tuple[tuple[int, str], ...], frames: int | None) -> None:
    firsts = [first for first, _ in schedule]
    if any(first < 0 for first in firsts) or firsts != sorted(set(firsts)):
        raise RequestError("schedule", firsts, "frames must be 0 or more and strictly ascending")
    if frames is not None and firsts and firsts[-1] >= frames:
        raise RequestError("schedule", firsts[-1], f"the video has {frames} frames, counted from 0, so this entry would never be used")
    for first, prompt in schedule:
        if not prompt.strip():
            raise RequestError("schedule", first, "its prompt must not be empty")


@dataclass(frozen=True)
class ExtendConfig:
    """Stages 1 and 2: chunk length and overlap in frames, denoising steps, guidance, and eta of the solver (spec 1.2, 5).

    `guidance_rescale` (0..1) pulls the guided prediction's spread back to the conditional one's (spec 6.4).
    """

    frames: int = 16
    overlap: int = 8
    steps: int = 50
    guidance_scale: float = 7.5
    guidance_rescale: float = 0.0
    eta: float = 1.0


@dataclass(frozen=True)
class RefineConfig:
    """Stage 3: window and overlap in frames, share of the noise schedule that is redone, steps, guidance (spec 6)."""

    frames: int = 24
    overlap: int = 8
    strength: float = 0.6
    steps: int = 30
    guidance_scale: float = 7.5
    guidance_rescale: float = 0.2
    scale: int = 2


@dataclass(frozen=True)
class ModelConfig:
    """`model.json` of a model folder: its native size and rate, and each stage's settings. `refine` None: it has no stage 3."""

    name: str
    height: int
    width: int
    fps: int
    extend: ExtendConfig = field(default_factory=ExtendConfig)
    refine: RefineConfig | None = None

    def output_size(self, request: Request) -> tuple[int, int]:
        """(height, width) of the frames that a request gives."""
        scale = self.refine.scale if request.preset == "full" and self.refine else 1
        return self.height * scale, self.width * scale

    def check(self, request: Request) -> None:
        """RequestError where the request is wrong or this model cannot do it; needs no weights."""
        request.validate()
        if request.preset == "full" and self.refine is None:
            raise RequestError("preset", "full", f"model {self.name!r} has no refiner; use preview")
        height, width = self.output_size(request)
        for name, asked, made in (("width", request.width, width), ("height", request.height, height)):
            if asked is not None and asked != made:
                fix = f"model {self.name!r} with preset {request.preset!r} makes {made}; set that or leave it out"
                raise RequestError(name, asked, fix)
        if request.fps is not None and request.fps > self.fps:
            raise RequestError("fps", request.fps, f"model {self.name!r} makes {self.fps} frames a second; set {self.fps} or less")

    def save(self, folder: Path) -> None:
        """Write `model.json`."""
        (folder / "model.json").write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> ModelConfig:
        """Read `model.json`; ModelError if it is missing or holds unknown names."""
        path = folder / "model.json"
        if not path.is_file():
            raise ModelError(f"{folder} is no model folder: it has no model.json")
        values = json.loads(path.read_text())
        try:
            _reject_unknown(cls, values, "model.json")
            extend = ExtendConfig(**values.pop("extend", {}))
            refine = values.pop("refine", None)
            return cls(**values, extend=extend, refine=RefineConfig(**refine) if refine is not None else None)
        except (TypeError, RequestError) as error:
            raise ModelError(f"{path}: {error}") from error


def find_model(name_or_folder: str | Path) -> Path:
    """The folder of an embedded model's name, or the folder itself; ModelError if there is neither."""
    embedded = str(name_or_folder) in EMBEDDED
    folder = Path(str(files("streamingt2v") / "weights" / str(name_or_folder))) if embedded else Path(name_or_folder)
    if not folder.is_dir():
        raise ModelError(f"no model {str(name_or_folder)!r}: give {' or '.join(EMBEDDED)}, or a folder with a model.json")
    return folder


def _reject_unknown(cls: type, values: dict[str, Any], where: str) -> None:
    unknown = sorted(set(values) - {f.name for f in dataclasses.fields(cls)})
    if unknown:
        raise RequestError(where, unknown, "unknown names")
