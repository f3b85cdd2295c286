"""Read the table of `batch`: one row per video, command line options as columns."""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

from .. import texts
from ..config import Request
from ..config.request import SHORT_NAMES
from ..config.schedule import parse_schedule, read_schedule, schedule_of
from ..errors import MissingExtra, RequestError
from .options import long_names
from .rows import READERS, Row, read_rows

NAME = re.compile(r"\w[\w.-]*")
LONGEST_NAME = 200
"""Bytes; leaves room for the suffixes of output and temporary files."""

MOST_SHOWN = 50  # wrong rows in an error message

COLUMNS = ("name", *(SHORT_NAMES.get(field.name, field.name) for field in dataclasses.fields(Request)))


def read_table(path: Path, check: Callable[[Request], Request]) -> list[tuple[str, Request]]:
    """Return (name, request) of every row in file order; rows without a name are numbered 0001, 0002, ...

    path: see `read_rows`. Empty cells and null mean the default. A `schedule` is a file path or JSON entries.
    check: return the request or raise RequestError.
    RequestError lists all wrong rows; MissingExtra for parquet without pyarrow.
    """
    rows = _read(path)
    made: list[tuple[str, Request]] = []
    wrong: list[str] = []
    for number, (place, row) in enumerate(rows, start=1):
        try:
            made.append((_name(row, number), check(_request(row))))
        except RequestError as error:
            line = "" if place == f"row {number}" else f" ({place})"
            wrong.append(f"row {number}: {_message(error)}{line}")
    twice = [name for name, count in Counter(name for name, _ in made).items() if count > 1]
    wrong += [f"the name {name!r} is given to several rows; each needs its own" for name in twice]
    if wrong:
        raise RequestError("prompts", str(path), f"wrong rows, of {len(rows)}:{_lines(wrong)}")
    if not made:
        raise RequestError("prompts", str(path), "has no rows")
    return made


def _read(path: Path) -> list[tuple[str, Row]]:
    if path.suffix.lower() not in READERS:
        raise RequestError("prompts", str(path), f"must end in one of {', '.join(READERS)}")
    try:
        rows = read_rows(path, COLUMNS)
    except FileNotFoundError:
        raise RequestError("prompts", str(path), texts.why_no_file(path)) from None
    except MissingExtra:
        raise
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise RequestError("prompts", str(path), f"cannot be read: {why}") from error
    for place, row in rows:
        if unknown := [name for name in row if name not in COLUMNS]:
            where = f"{place} has" if path.suffix.lower() == ".jsonl" else "has"
            fix = f"{where} a column {texts.shortened(unknown[0])!r}; there are {', '.join(COLUMNS)}"
            raise RequestError("prompts", str(path), fix)
    if rows and not any("prompt" in row for _, row in rows):
        raise RequestError("prompts", str(path), "has no column 'prompt'")
    return rows


def _lines(wrong: list[str]) -> str:
    more = [f"and {len(wrong) - MOST_SHOWN} more"] if len(wrong) > MOST_SHOWN else []
    return "".join(f"\n  {line}" for line in [*wrong[:MOST_SHOWN], *more])


def _name(row: Row, number: int) -> str:
    given = row.get("name")
    name = (
        f"{number:04d}"
        if _is_empty(given)
        else str(_count(given) if isinstance(given, float) else given).strip()
    )
    if not NAME.fullmatch(name):
        raise RequestError(
            "name", name, "must consist of letters, digits, '_', '-' and '.', and not begin with '.' or '-'"
        )
    if len(name.encode()) > LONGEST_NAME:
        fix = f"has {len(name.encode())} bytes; at most {LONGEST_NAME} are allowed"
        raise RequestError("name", texts.shortened(name), fix)
    return name


def _count(value: float) -> float:
    """Return whole floats as int: pandas turns a column of integers with empty cells into floats."""
    return int(value) if value.is_integer() else value


def _request(row: Row) -> Request:
    given = {name: value for name, value in row.items() if name != "name" and not _is_empty(value)}
    hints = {SHORT_NAMES.get(name, name): hint for name, hint in get_type_hints(Request).items()}
    values = {
        name: _schedule(v) if name == "schedule" else _value(name, v, hints[name])
        for name, v in given.items()
    }
    if "prompt" not in values:
        raise RequestError("prompt", None, "must not be empty")
    if "refine" in values:  # as the command `refine`
        values = {"frames": None, "preset": "full"} | values
    return Request(**long_names(values))


def _message(error: RequestError) -> str:
    """Return the message with the argument's column name."""
    return f"{SHORT_NAMES.get(error.argument, error.argument)}={error.value!r}: {error.fix}"


def _is_empty(value: Any) -> bool:
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (isinstance(value, str) and not value.strip())


def _value(name: str, value: Any, hint: Any) -> Any:
    """Convert a cell to the type of its `Request` field, without rounding; RequestError if it cannot be."""
    kinds = get_args(hint) or (hint,)
    kind = int if int in kinds else float if float in kinds else str
    try:
        if kind is int:
            return texts.whole_number(value)
        if isinstance(value, bool) or (kind is str and not isinstance(value, str)):
            raise ValueError(value)
        return kind(value)
    except (TypeError, ValueError, OverflowError):
        what = {int: "a whole number", float: "a number", str: "a text"}[kind]
        raise RequestError(name, value, f"must be {what}") from None


def _schedule(value: Any) -> tuple[tuple[int, str], ...]:
    if not isinstance(value, str):
        return schedule_of(value, value)
    return parse_schedule(value, value) if value.lstrip()[:1] in ("[", "{") else read_schedule(Path(value))
