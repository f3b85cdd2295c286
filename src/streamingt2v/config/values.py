"""Reading and checking of configuration values."""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from .. import texts
from ..errors import ModelError, RequestError


def require(holds: bool, name: str, value: object, what: str) -> None:
    """ModelError unless it holds that the value called `name` is `what`."""
    if not holds:
        raise ModelError(f"{name}={value!r} must be {what}")


def read_json(path: Path) -> Any:
    """Return what a JSON file of a model holds; ModelError with its name if it cannot be read."""
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
    require(
        math.isfinite(guidance_scale) and guidance_scale >= 0,
        f"{stage}.guidance_scale",
        guidance_scale,
        "finite, 0 or more",
    )
    require(0 <= guidance_rescale <= 1, f"{stage}.guidance_rescale", guidance_rescale, "between 0 and 1")


def check_size(stage: str, scale: int, height: int | None, width: int | None) -> None:
    require(scale >= 1, f"{stage}.scale", scale, "1 or more")
    require(
        (height is None) == (width is None), f"{stage}.height", height, f"given together with {stage}.width"
    )
    for name, side in (("height", height), ("width", width)):
        require(
            side is None or (side >= 2 and side % 2 == 0),
            f"{stage}.{name}",
            side,
            "an even number, 2 or more",
        )


def relative(path: str, folder: Path) -> str:
    """A path as seen from a folder; on Windows an absolute one where it lies on another drive."""
    try:
        return Path(os.path.relpath(path, folder.absolute())).as_posix()
    except ValueError:
        return path


def check_types(cls: type, values: dict[str, Any]) -> None:
    """TypeError unless values read from JSON have the types of the dataclass's fields; names without a field are passed over.

    Looks at plain types, what is in a Literal, and whether None is allowed; not into lists and objects.
    """
    hints = get_type_hints(cls)
    for name in values.keys() & hints.keys():
        if not any(_is_of(values[name], kind) for kind in _alternatives(hints[name])):
            raise TypeError(f"{name} is {texts.shortened(repr(values[name]))}")


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _is_of(value: Any, kind: Any) -> bool:
    origin = get_origin(kind) or kind
    if origin is Literal:
        return value in get_args(kind)
    if origin in (int, float) and isinstance(value, bool):
        return False
    if origin in (tuple, list):
        return isinstance(value, list | tuple)
    if dataclasses.is_dataclass(origin):
        return isinstance(value, origin | dict)  # type: ignore[operator]
    return isinstance(value, int | float) if origin is float else isinstance(value, origin)
