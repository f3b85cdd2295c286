"""What the page must know to draw its form, and the settings of a job or a file in the names of the API."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ..api.schemas import Model
from ..config import FORMS, ModelConfig, Request
from ..errors import RequestError
from ..jobs.service import JobService
from .examples import EXAMPLES
from .words import known_words

FULL_FRAMES = 80
PREVIEW_CHUNKS = 3
"""Chunks after the first that a preview has where no length is chosen."""

_FIELDS = "prompt num_frames seed negative_prompt schedule preset num_inference_steps guidance_scale fps form strength".split()
_OLD_NAMES = {"frames": "num_frames", "steps": "num_inference_steps"}  # in files of before


def page_settings(service: JobService) -> dict[str, Any]:
    """Models, limits and examples, as JSON."""
    limits = service.limits
    return {
        "default_model": service.default_model,
        "models": [
            _model(name, config) | {"knows": known_words(service.settings.names[name])}
            for name, config in service.configs.items()
        ],
        "limits": {
            name: getattr(limits, name)
            for name in ("prompt", "frames", "steps", "upload_bytes", "upload_seconds")
        },
        "forms": list(FORMS),
        "examples": [dataclasses.asdict(example) for example in EXAMPLES],
    }


def _model(name: str, config: ModelConfig) -> dict[str, Any]:
    """The API's word on a model, and how long its videos are where no length is chosen."""
    chunks = config.extend.frames + PREVIEW_CHUNKS * (config.extend.frames - config.extend.overlap)
    return Model.of(name, config).model_dump() | {"frames": {"preview": chunks, "full": FULL_FRAMES}}


def settings_of(request: Request, model: str) -> dict[str, Any]:
    """The fields of the API that ask for this request again, but for the file that it starts from; None is the model's own."""
    values = {name: getattr(request, name) for name in _FIELDS}
    return values | {"model": model, "schedule": [list(entry) for entry in request.schedule]}


def settings_of_file(metadata: Mapping[str, Any], models: Mapping[str, ModelConfig]) -> dict[str, Any] | None:
    """What a video says it was made with, and in `remarks` what of it cannot be brought back; None of a video from elsewhere.

    RequestError if it says something that makes no sense.
    """
    if not isinstance(metadata.get("prompt"), str) or "seed" not in metadata:
        return None
    metadata = {_OLD_NAMES.get(name, name): value for name, value in metadata.items()}
    try:
        known = {name: metadata[name] for name in _FIELDS if name in metadata}
        # a file's rate is always there; it is a wish only where it is not the one that its model has anyway
        request = dataclasses.replace(Request.from_json(known), fps=None)
        request = dataclasses.replace(
            request, seed=int(request.seed), negative_prompt=str(request.negative_prompt)
        ).validate()
        rate = _asked_rate(metadata, models.get(str(metadata.get("model"))))
        request = dataclasses.replace(request, fps=rate).validate()
    except (TypeError, ValueError) as error:
        raise RequestError("video", "settings", f"the settings in it cannot be read: {error}") from error
    return settings_of(request, str(metadata.get("model"))) | {"remarks": _remarks(metadata, models)}


def _asked_rate(metadata: Mapping[str, Any], config: ModelConfig | None) -> int | None:
    rate = metadata.get("fps")
    if metadata.get("video") or metadata.get("refine") or not isinstance(rate, int):
        return None
    return None if config is not None and rate == config.fps else rate


def _remarks(metadata: Mapping[str, Any], models: Mapping[str, ModelConfig]) -> list[str]:
    """What of a file's settings this page cannot bring back, a sentence each."""
    remarks = [
        f"It began from {what}, {metadata[name]}; choose that again."
        for name, what in (("image", "a picture"), ("video", "a video"))
        if metadata.get(name)
    ]
    if metadata.get("refine"):
        remarks.append(
            f"It is {metadata['refine']}, refined; with these settings a new video is made from the prompt."
        )
    if metadata.get("base"):
        remarks.append(f"Its first chunk was made by {metadata['base']}, which the page cannot choose.")
    if str(metadata.get("model")) not in models:
        remarks.append(f"Its model, {metadata.get('model')}, is not on this server.")
    return remarks
