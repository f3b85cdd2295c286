"""A table of videos to make, as `batch` reads it: a row a video, the options of the command line as columns."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import re
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args, get_type_hints

from ..config import Request
from ..errors import MissingExtra, RequestError
from .schedule import read_schedule, schedule_of

Row = dict[str, Any]
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
COLUMNS = ("name", *(field.name for field in dataclasses.fields(Request)))


def read_table(path: Path, check: Callable[[Request], Request]) -> list[tuple[str, Request]]:
    """(name, request) of every row, in the file's order. Rows without a name are called by their number: 0001, 0002, ...

    path: .csv with a head line, .jsonl of one object a line, or .parquet. An empty cell, or null, is the option's default; a `schedule` is
    a file's path, or in JSON the entries themselves. check: gives back a request that can be made, or raises RequestError.
    RequestError names all rows that are wrong, at once; MissingExtra for parquet without the extra that reads it.
    """
    rows = _read(path)
    made: list[tuple[str, Request]] = []
    wrong: list[str] = []
    for number, row in enumerate(rows, start=1):
        try:
            made.append((_name(row, number), check(_request(row))))
        except RequestError as error:
            wrong.append(f"row {number}: {error}")
    twice = [name for name, count in Counter(name for name, _ in made).items() if count > 1]
    wrong += [f"the name {name!r} is given to several rows; each needs its own" for name in twice]
    if wrong:
        raise RequestError("prompts", str(path), "".join([f"of {len(rows)} rows, wrong are:", *(f"\n  {line}" for line in wrong)]))
    if not made:
        raise RequestError("prompts", str(path), "holds no row")
    return made


def _read(path: Path) -> list[Row]:
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
    if path.suffix.lower() not in readers:
        raise RequestError("prompts", str(path), f"must end in one of {', '.join(readers)}")
    try:
        rows = readers[path.suffix.lower()](path)
    except FileNotFoundError:
        raise RequestError("prompts", str(path), "no such file") from None
    except (OSError, ValueError, csv.Error) as error:
        raise RequestError("prompts", str(path), f"cannot be read: {error}") from error
    names = dict.fromkeys(name for row in rows for name in row)
    unknown = [name for name in names if name not in COLUMNS]
    if unknown:
        raise RequestError("prompts", str(path), f"has a column {unknown[0]!r}; there are {', '.join(COLUMNS)}")
    if rows and "prompt" not in names:
        raise RequestError("prompts", str(path), "has no column 'prompt'")
    return rows


def _read_csv(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file, strict=True))
    for number, row in enumerate(rows, start=1):
        if None in row or None in row.values():
            raise ValueError(f"row {number} has {'more' if None in row else 'fewer'} cells than the head line")
    return [{name.strip(): value for name, value in row.items()} for row in rows]


def _read_jsonl(path: Path) -> list[Row]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("every line must be a JSON object")
    return rows


def _read_parquet(path: Path) -> list[Row]:
    if find_spec("pyarrow") is None:
        raise MissingExtra("prompts", "ray")
    from pyarrow import parquet

    return parquet.read_table(path).to_pylist()


def _name(row: Row, number: int) -> str:
    name = str(row.get("name") or f"{number:04d}").strip()
    if not NAME.fullmatch(name):
        raise RequestError("name", name, "must be of letters, digits, '_', '-' and '.', and begin with no '.' or '-'")
    return name


def _request(row: Row) -> Request:
    given = {name: value for name, value in row.items() if name != "name" and not _is_empty(value)}
    hints = get_type_hints(Request)
    values = {name: _schedule(v) if name == "schedule" else _value(name, v, hints[name]) for name, v in given.items()}
    if "prompt" not in values:
        raise RequestError("prompt", None, "must not be empty")
    if "refine" in values:  # as the command `refine` does it
        values = {"frames": None, "preset": "full"} | values
    return Request(**values)


def _is_empty(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _value(name: str, value: Any, hint: Any) -> Any:
    """The cell as what the request holds: text of a CSV file is read, a number of JSON is taken as it is, and never rounded."""
    kinds = get_args(hint) or (hint,)
    kind = int if int in kinds else float if float in kinds else str
    try:
        if kind is int and isinstance(value, float) and value.is_integer():
            return int(value)  # a column with an empty cell becomes one of floats on its way into a parquet file
        if isinstance(value, bool) or (kind is int and isinstance(value, float)) or (kind is str and not isinstance(value, str)):
            raise ValueError(value)
        return kind(value)
    except (TypeError, ValueError, OverflowError):
        what = {int: "a whole number", float: "a number", str: "a text"}[kind]
        raise RequestError(name, value, f"must be {what}") from None


def _schedule(value: Any) -> tuple[tuple[int, str], ...]:
    return read_schedule(Path(value)) if isinstance(value, str) else schedule_of(value, value)
