"""Settings for the page's form: of the server, of a job and of a video file."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, get_args

from ..api.schemas import Model
from ..config import FORMS, ModelConfig, Preset, Request
from ..errors import RequestError, StreamingT2VError
from ..jobs.service import JobService
from ..resolve import resolve
from ..texts import shortened
from .examples import EXAMPLES
from .words import known_words

FULL_FRAMES = 80  # of a full video of default length
PREVIEW_CHUNKS = 3  # after the first, in a preview of default length

_FIELDS = (
    "prompt num_frames seed negative_prompt schedule preset num_inference_steps guidance_scale fps form "
    "strength"
).split()
_TRIALS: dict[str, Any] = {
    "negative_prompt": "blurry", "guidance_scale": 2.0, "schedule": ((1, "A dog"),), "strength": 0.5,
    "form": FORMS[0],
}  # fmt: skip
_OLD_NAMES = {"frames": "num_frames", "steps": "num_inference_steps"}  # in older files


def page_settings(service: JobService) -> dict[str, Any]:
    """Return models, limits and examples as JSON."""
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
    """Return the API's description of a model and the default lengths of its videos."""
    chunks = config.extend.frames + PREVIEW_CHUNKS * (config.extend.frames - config.extend.overlap)
    more = {"frames": {"preview": chunks, "full": FULL_FRAMES}, "takes": _fields_with_effect(config)}
    return Model.of(name, config).model_dump() | more


def _fields_with_effect(config: ModelConfig) -> dict[str, list[str]]:
    """Return, by preset, the optional fields that the model does not refuse."""

    def takes(preset: Preset, name: str, value: Any) -> bool:
        try:
            resolve(config, Request("A cat", 2 * config.extend.frames, preset=preset, **{name: value}))
        except StreamingT2VError as error:
            return getattr(error, "argument", None) != name
        return True

    return {
        preset: [name for name, v in _TRIALS.items() if takes(preset, name, v)] for preset in get_args(Preset)
    }


def settings_of(request: Request, model: str) -> dict[str, Any]:
    """Return the API fields that repeat a request, without its file; None means the model's default."""
    values = {name: getattr(request, name) for name in _FIELDS}
    return values | {"model": model, "schedule": [list(entry) for entry in request.schedule]}


def settings_of_file(metadata: Mapping[str, Any], models: Mapping[str, ModelConfig]) -> dict[str, Any] | None:
    """Return the settings stored in a video and `remarks` on what cannot be restored; None without settings.

    RequestError for invalid settings.
    """
    if not isinstance(metadata.get("prompt"), str) or "seed" not in metadata:
        return None
    metadata = {_OLD_NAMES.get(name, name): value for name, value in metadata.items()}
    try:
        known = {name: metadata[name] for name in _FIELDS if name in metadata}
        # every file has a rate; it was asked for only if it differs from the model's
        request = dataclasses.replace(Request.from_json(known), fps=None)
        request = dataclasses.replace(
            request, seed=int(request.seed), negative_prompt=str(request.negative_prompt)
        ).validate()
        rate = _asked_rate(metadata, models.get(str(metadata.get("model"))))
        request = dataclasses.replace(request, fps=rate).validate()
        model = shortened(str(metadata.get("model")))
        found = settings_of(request, model) | {"remarks": _remarks(metadata, models)}
        json.dumps(found, allow_nan=False, ensure_ascii=False).encode()  # it must be possible to answer
        return found
    except (TypeError, ValueError, AttributeError, KeyError, OverflowError, RecursionError) as error:
        raise RequestError("video", "settings", f"its settings cannot be read: {error}") from error


def _asked_rate(metadata: Mapping[str, Any], config: ModelConfig | None) -> int | None:
    rate = metadata.get("fps")
    if metadata.get("video") or metadata.get("refine") or not isinstance(rate, int):
        return None
    return None if config is not None and rate == config.fps else rate


def _remarks(metadata: Mapping[str, Any], models: Mapping[str, ModelConfig]) -> list[str]:
    """Return one sentence for each stored setting that the form cannot restore."""
    remarks = [
        f"It began from {what}, {shortened(str(metadata[name]))}; choose it again."
        for name, what in (("image", "an image"), ("video", "a video"))
        if metadata.get(name)
    ]
    if metadata.get("refine"):
        refined = shortened(str(metadata["refine"]))
        remarks.append(f"It is a refined {refined}; these settings make a new video from the prompt.")
    if metadata.get("base"):
        base = shortened(str(metadata["base"]))
        remarks.append(f"Its first chunk was made by {base}, which the page cannot choose.")
    if str(metadata.get("model")) not in models:
        remarks.append(f"Its model, {shortened(str(metadata.get('model')))}, is not on this server.")
    return remarks
