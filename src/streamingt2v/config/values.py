"""How values of a configuration are read from JSON and checked."""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path
from typing import Any

from .. import texts
from ..errors import ModelError, RequestError


def require(holds: bool, name: str, value: object, what: str) -> None:
    """ModelError unless it holds that the value called `name` is `what`."""
    if not holds:
        raise ModelError(f"{name}={value!r} must be {what}")


def read_json(path: Path) -> Any:
    """What a JSON file of a model holds; ModelError with its name if it cannot be read."""
    try:
        return texts.read_json(path, most=2**26)  # a tokenizer's may have tens of megabytes
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ModelError(f"{path}: cannot be read as JSON: {error}") from error


def reject_unknown(cls: type, values: dict[str, Any], where: str) -> None:
    """RequestError for names that the dataclass `cls` has no field of."""
    unknown = sorted(set(values) - {f.name for f in dataclasses.fields(cls)})
    if unknown:
        raise RequestError(where, unknown, "unknown names")


def check_sampling(stage: str, steps: int, guidance_scale: float, guidance_rescale: float) -> None:
    """ModelError for values of a stage that make no sense."""
    require(1 <= steps <= 1000, f"{stage}.steps", steps, "between 1 and 1000")
    require(math.isfinite(guidance_scale) and guidance_scale >= 0, f"{stage}.guidance_scale", guidance_scale, "finite, 0 or more")
    require(0 <= guidance_rescale <= 1, f"{stage}.guidance_rescale", guidance_rescale, "between 0 and 1")


def check_size(stage: str, scale: int, height: int | None, width: int | None) -> None:
    require(scale >= 1, f"{stage}.scale", scale, "1 or more")
    require((height is None) == (width is None), f"{stage}.height", height, f"given together with {stage}.width")
    for name, side in (("height", height), ("width", width)):
        require(side is None or (side >= 2 and side % 2 == 0), f"{stage}.{name}", side, "an even number, 2 or more")


def relative(path: str, folder: Path) -> str:
    """A path as seen from a folder; on Windows an absolute one where it lies on another drive."""
    try:
        return Path(os.path.relpath(path, folder.absolute())).as_posix()
    except ValueError:
        return path
