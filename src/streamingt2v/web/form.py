"""The form of the page: what its fields hold, as a request and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..config import ModelConfig, Preset, Request
from ..config.schedule import parse_schedule
from ..errors import RequestError

FULL_FRAMES = 80
PREVIEW_CHUNKS = 3
"""Chunks after the first that a preview has where no length is chosen."""

SEED = "33"
EXAMPLE_LINE = "40: A dog running on the beach"


@dataclass(frozen=True)
class Form:
    """The fields in the order of the page, as they are typed; "" and None (of one that was never unfolded) are empty."""

    prompt: str | None = ""
    frames: str | None = ""
    model: str | None = None
    negative_prompt: str | None = ""
    seed: str | None = SEED
    steps: str | None = ""
    guidance_scale: str | None = ""
    schedule: str | None = ""

    def request(self, preset: Preset, config: ModelConfig, image: str | None, video: str | None) -> Request:
        """What is asked for of a model. RequestError for a field that holds something else than it should."""
        frames, seed = _whole("frames", self.frames), _whole("seed", self.seed)
        return Request(
            prompt=self.prompt or "",
            num_frames=default_frames(preset, config) if frames is None else frames,
            seed=int(SEED) if seed is None else seed,
            image=image,
            video=video,
            negative_prompt=self.negative_prompt or "",
            schedule=parse_schedule(self.schedule or ""),
            preset=preset,
            num_inference_steps=_whole("steps", self.steps),
            guidance_scale=_number("guidance_scale", self.guidance_scale),
        )

    @classmethod
    def of(cls, request: Request, model: str | None) -> Form:
        """The form that gives this request; what it starts from is not in it."""
        return cls(
            prompt=request.prompt,
            frames=_typed(request.num_frames),
            model=model,
            negative_prompt=request.negative_prompt,
            seed=str(request.seed),
            steps=_typed(request.num_inference_steps),
            guidance_scale=_typed(request.guidance_scale),
            schedule="\n".join(f"{frame}: {prompt}" for frame, prompt in request.schedule),
        )


NAMES = tuple(field.name for field in dataclasses.fields(Form))


def default_frames(preset: Preset, config: ModelConfig) -> int:
    """How many frames are made where no length is chosen: a short clip for a preview."""
    if preset == "full":
        return FULL_FRAMES
    return config.extend.frames + PREVIEW_CHUNKS * (config.extend.frames - config.extend.overlap)


def request_of_file(metadata: Mapping[str, Any]) -> Request | None:
    """The request that a video says it was made from, without the files it started from; None of a video from elsewhere.

    RequestError if it says something that makes no sense.
    """
    if not isinstance(metadata.get("prompt"), str) or "seed" not in metadata:
        return None
    names = {"prompt", "num_frames", "seed", "negative_prompt", "schedule", "preset", "num_inference_steps", "guidance_scale"}
    try:
        request = Request.from_json({name: value for name, value in metadata.items() if name in names})
        return dataclasses.replace(request, seed=int(request.seed), negative_prompt=str(request.negative_prompt)).validate()
    except (TypeError, ValueError) as error:
        raise RequestError("file", "settings", f"the settings in it cannot be read: {error}") from error


def _whole(name: str, text: str | None) -> int | None:
    text = (text or "").strip()
    if text and not text.isdecimal():
        raise RequestError(name, text[:20], "must be a whole number")
    return int(text) if text else None


def _number(name: str, text: str | None) -> float | None:
    text = (text or "").strip()
    try:
        return float(text.replace(",", ".")) if text else None
    except ValueError as error:
        raise RequestError(name, text[:20], "must be a number") from error


def _typed(value: float | None) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
