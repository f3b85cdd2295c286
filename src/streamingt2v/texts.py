"""Text files as people's tools write them: byte order marks, line ends, JSON; read within bounds, and faults told by their line.

Everything here raises ValueError with a message for people, and OSError where a file cannot be read; the callers name argument and file.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

LARGEST = 2**22
"""Bytes of a file of settings or prompts, at most."""

DEEPEST = 64
"""Objects and lists within each other, at most."""

DIGITS = 40
"""Largest number of digits of a whole number."""

_MARKS = (  # the longer first: UTF-16's mark begins UTF-32's
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|\n|[^\s{}\[\],:"]+', re.DOTALL)


def read_text(path: Path, most: int = LARGEST) -> str:
    """The text of a file in UTF-8, or in what its byte order mark says; OSError or ValueError if it is none, or has more bytes."""
    with path.open("rb") as file:  # may be a pipe, which has no size
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"has more than {most // 2**20} MiB")
    return decoded(data)


def decoded(data: bytes) -> str:
    """The text of bytes in UTF-8, or in what their byte order mark says, without the mark; ValueError names the line that is none."""
    mark, encoding = next(((mark, name) for mark, name in _MARKS if data.startswith(mark)), (b"", "utf-8"))
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: len(mark) + error.start].decode(encoding, errors="replace").count("\n") + 1
        raise ValueError(f"line {line} is no {encoding.upper()} text; save the file as UTF-8") from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise ValueError(f"line {line} holds a zero byte; save the file as UTF-8")
    return text


def lines(text: str) -> list[str]:
    """Split where files end lines (LF, CRLF, CR) and nowhere else: other separators of Unicode belong to the text."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def parse_json(text: str | bytes, first_line: int = 1) -> Any:
    """Return what JSON says; ValueError, with the line, for what is no JSON, names a key twice, is nested too deep or holds a giant number.

    first_line: the number of the text's first line in its file.
    """
    text = decoded(text) if isinstance(text, bytes) else text.removeprefix("\ufeff")
    try:
        values = json.loads(text, object_pairs_hook=_object, parse_int=_whole)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {first_line + error.lineno - 1}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise ValueError(_where(text, first_line) or _too_deep(first_line)) from None
    except _Twice as twice:
        raise ValueError(_where(text, first_line) or f"line {first_line}: {twice}") from None
    except _Giant as giant:
        line = first_line + text[: text.find(giant.digits)].count("\n")
        raise ValueError(f"line {line}: a number of {len(giant.digits)} digits") from None
    if _is_deep(values):
        raise ValueError(_where(text, first_line) or _too_deep(first_line))
    return values


def read_json(path: Path, most: int = LARGEST) -> Any:
    """Return what a JSON file says; OSError or ValueError, see `read_text` and `parse_json`."""
    return parse_json(read_text(path, most))


def whole_number(value: Any) -> int:
    """8 of 8, "8", 8.0 or "8.0", which tables make of it; ValueError for anything else."""
    if isinstance(value, str):
        found = re.fullmatch(r"\s*([+-]?\d+)(?:\.0*)?\s*", value)
        if found is None or len(found[1]) > DIGITS:
            raise ValueError("no whole number")
        return int(found[1])
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float | Decimal)
        or not math.isfinite(value)
        or value != int(value)
    ):
        raise ValueError("no whole number")
    return int(value)


def check_text(value: str) -> None:
    """ValueError for text that has no bytes in UTF-8: it came from bytes that were none, or half of a pair of UTF-16."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("holds what is no UTF-8 text") from None


def shortened(value: str, most: int = 80) -> str:
    """The beginning of a text, for messages."""
    return value if len(value) <= most else value[: most - 3] + "..."


class _Twice(Exception):
    pass


class _Giant(Exception):
    def __init__(self, digits: str):
        self.digits = digits


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise _Twice("a key is given twice")
    return values


def _whole(digits: str) -> int:
    if len(digits) > DIGITS:
        raise _Giant(digits)
    return int(digits)


def _is_deep(values: Any) -> bool:
    level = [values]
    for _ in range(DEEPEST + 1):
        level = [
            v
            for outer in level
            for v in (outer.values() if isinstance(outer, dict) else outer if isinstance(outer, list) else ())
        ]
        if not level:
            return False
    return True


def _too_deep(line: int) -> str:
    return f"line {line}: is nested more than {DEEPEST} deep"


def _where(text: str, line: int) -> str | None:
    """Return what is wrong with the first key given twice or bracket nested too deep, in its line."""
    keys: list[dict[str, int]] = []
    token = ""
    for found in _TOKEN.finditer(text):
        before, token = token, found[0]
        if token == "\n":
            line, token = line + 1, before
        elif token in "{[":
            keys.append({})
            if len(keys) > DEEPEST:
                return _too_deep(line)
        elif token in "}]" and keys:
            keys.pop()
        elif token == ":" and keys and before.startswith('"'):
            name = json.loads(before)
            if name in keys[-1]:
                return (
                    f"line {line}: the key {shortened(name)!r} is given twice, first in line {keys[-1][name]}"
                )
            keys[-1][name] = line
    return None
