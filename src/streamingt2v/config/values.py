"""Read and check configuration values."""

import dataclasses
import math
import os
from collections.abc import Callable
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, Literal, Self, Union, get_args, get_origin, get_type_hints

from .. import texts
from ..errors import ModelError, RequestError


def require(holds: bool, name: str, value: object, what: str) -> None:
    """Raise ModelError unless `holds`: the value called `name` must be `what`."""
    if not holds:
        raise ModelError(f"{name}={value!r} must be {what}")


def check_fields(prefix: str, settings: object, **rules: tuple[bool, str]) -> None:
    """Raise ModelError unless each rule, field=(holds, what it must be), holds. prefix: of the names."""
    for name, (holds, what) in rules.items():
        require(holds, prefix + name, getattr(settings, name), what)


def read_json(path: Path) -> Any:
    """Read a JSON file of a model; raise ModelError naming it if that fails."""
    try:
        return texts.read_json(path, most=2**26)  # a tokenizer's may have tens of megabytes
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ModelError(f"{path}: cannot be read as JSON: {error}") from error


def reject_unknown(cls: type, values: dict[str, Any], where: str) -> None:
    """Raise RequestError for names that are not fields of the dataclass `cls`."""
    unknown = sorted(set(values) - {f.name for f in dataclasses.fields(cls)})
    if unknown:
        raise RequestError(where, unknown, "unknown names")


def check_sampling(stage: str, steps: int, guidance_scale: float, guidance_rescale: float) -> None:
    """Raise ModelError for invalid sampling values of a stage."""
    require(1 <= steps <= 1000, f"{stage}.steps", steps, "between 1 and 1000")
    sensible = math.isfinite(guidance_scale) and guidance_scale >= 0
    require(sensible, f"{stage}.guidance_scale", guidance_scale, "finite, 0 or more")
    require(0 <= guidance_rescale <= 1, f"{stage}.guidance_rescale", guidance_rescale, "between 0 and 1")


class Located:
    """Mixin of settings that name pipelines, in the fields `PATHS`.

    Each is a folder relative to the settings' file, or a name or hub id as in `--model`.
    """

    PATHS: ClassVar[tuple[str, ...]] = ("pipeline",)

    def within(self, folder: Path) -> Self:
        """Return the settings with absolute paths of what exists, resolved from `folder`."""
        return self.with_paths(
            lambda path: str(found) if (found := (folder / path).absolute()).exists() else path
        )

    def relative_to(self, folder: Path) -> Self:
        """Return the settings with absolute paths made relative to `folder`."""
        return self.with_paths(lambda path: relative(path, folder) if Path(path).is_absolute() else path)

    def with_paths(self, change: Callable[[str], str]) -> Self:
        paths = {name: change(path) for name in self.PATHS if (path := getattr(self, name)) is not None}
        return dataclasses.replace(self, **paths)  # type: ignore[type-var]


class Resized:
    """Mixin of settings that enlarge frames: to `height` x `width`, else by `scale`."""

    scale: int
    height: int | None
    width: int | None

    def check_size(self, stage: str) -> None:
        """Raise ModelError for an invalid output size."""
        even = "an even number, 2 or more"
        check_fields(
            f"{stage}.",
            self,
            scale=(self.scale >= 1, "1 or more"),
            height=(self.height is None or (self.height >= 2 and self.height % 2 == 0), even),
            width=(self.width is None or (self.width >= 2 and self.width % 2 == 0), even),
        )
        both = (self.height is None) == (self.width is None)
        require(both, f"{stage}.height", self.height, f"given together with {stage}.width")

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return (height, width) that frames of a size are refined to."""
        if self.height is not None and self.width is not None:
            return self.height, self.width
        return self.scale * height, self.scale * width


def relative(path: str, folder: Path) -> str:
    """Return a path relative to a folder; on Windows absolute if it is on another drive."""
    try:
        return Path(os.path.relpath(path, folder.absolute())).as_posix()
    except ValueError:
        return path


def check_types(cls: type, values: dict[str, Any]) -> None:
    """Raise TypeError unless JSON values match the dataclass's field types; other names are ignored.

    Checks plain types, Literal values and None, not the contents of lists and objects.
    """
    hints = get_type_hints(cls)
    for name in values.keys() & hints.keys():
        hint = hints[name]
        alternatives = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        if not any(_is_of(values[name], kind) for kind in alternatives):
            raise TypeError(f"{name} is {texts.shortened(repr(values[name]))}")


def parse_object(cls: type, data: bytes) -> dict[str, Any]:
    """Parse a JSON object, see `check_types`; raise ValueError or TypeError for anything else."""
    values = texts.parse_json(data)
    if not isinstance(values, dict):
        raise ValueError("not a JSON object")
    check_types(cls, values)
    return values


def _is_of(value: Any, kind: Any) -> bool:
    origin = get_origin(kind) or kind
    if origin is Literal:
        return value in get_args(kind)
    if origin in (int, float) and isinstance(value, bool):
        return False
    if origin in (tuple, list):
        return isinstance(value, list | tuple)
    if dataclasses.is_dataclass(origin):
        return isinstance(value, origin | dict)
    return isinstance(value, int | float) if origin is float else isinstance(value, origin)
