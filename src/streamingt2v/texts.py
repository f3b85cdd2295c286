"""Read text and JSON files as various tools write them: byte order marks, line ends; errors name the line.

Errors are ValueErrors with a message for users (OSError for unreadable files); callers add argument and file.
"""

import codecs
import json
import math
import os
import re
from decimal import Decimal
from os import PathLike
from pathlib import Path
from typing import Any

LARGEST = 2**22
"""Limit of a file of settings or prompts, in bytes."""

DEEPEST = 64
"""Limit of nesting in JSON."""

DIGITS = 40
"""Limit of digits of an integer."""

_MARKS = (  # the longer first: UTF-16's mark begins UTF-32's
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|\n|[^\s{}\[\],:"]+', re.DOTALL)
_NUMBER = re.compile(r"(-?[0-9]+)(\.[0-9]+|[eE][-+]?[0-9]+)?")


def read_text(path: Path, most: int = LARGEST) -> str:
    """Read a text file of at most `most` bytes, see `decoded`. OSError or ValueError."""
    with path.open("rb") as file:  # may be a pipe, which has no size
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"has more than {most // 2**20} MiB")
    return decoded(data)


def decoded(data: bytes) -> str:
    """Decode bytes as UTF-8, or by their byte order mark, which is dropped. ValueError names the bad line."""
    mark, encoding = next(((mark, name) for mark, name in _MARKS if data.startswith(mark)), (b"", "utf-8"))
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: len(mark) + error.start].decode(encoding, errors="replace").count("\n") + 1
        raise ValueError(f"line {line} is not {encoding.upper()} text; save the file as UTF-8") from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise ValueError(f"line {line} has a zero byte; save the file as UTF-8")
    return text


def lines(text: str) -> list[str]:
    """Split at LF, CRLF and CR only: Unicode's other line separators belong to the text."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def parse_json(text: str | bytes, first_line: int = 1) -> Any:
    """Parse JSON. ValueError, with the line, for bad JSON, a repeated key, deep nesting or a giant number.

    first_line: the line number of the text's first line in its file.
    """
    text = decoded(text) if isinstance(text, bytes) else text.removeprefix("\ufeff")
    try:
        values = json.loads(text, object_pairs_hook=_object, parse_int=_whole)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {first_line + error.lineno - 1}, column {error.colno}: {error.msg}") from None
    except (RecursionError, _Refused):
        raise ValueError(_where(text, first_line)) from None
    if _is_deep(values):
        raise ValueError(_where(text, first_line))
    return values


def read_json(path: Path, most: int = LARGEST) -> Any:
    """Parse a JSON file, see `read_text` and `parse_json`."""
    return parse_json(read_text(path, most))


def whole_number(value: Any) -> int:
    """Return 8 for 8, "8", 8.0 or "8.0" (tables contain all of these); ValueError for anything else."""
    if isinstance(value, str):
        found = re.fullmatch(r"\s*([+-]?\d+)(?:\.0*)?\s*", value)
        if found is None or len(found[1]) > DIGITS:
            raise ValueError("no whole number")
        return int(found[1])
    is_number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value != int(value):
        raise ValueError("no whole number")
    return int(value)


def check_text(value: str) -> None:
    """Raise ValueError for text that UTF-8 cannot encode: lone surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("is not valid UTF-8 text") from None


def why_no_file(path: str | PathLike[str]) -> str:
    """Tell users why a path is no file that can be read: missing, a folder, a pipe, an address, a "~"."""
    name = os.fspath(path)
    if os.path.isdir(name):  # noqa: PTH112 (Path raises for a name that is too long)
        return "is a folder; name a file"
    if os.path.exists(name):  # noqa: PTH110
        return "is a pipe or device; save it in a file first, it is read several times"
    return f"no such file{not_expanded(name)}"


def not_expanded(path: str) -> str:
    """Return how to mend a path that a shell or a browser would understand; empty for others."""
    if re.match(r"~[\w.-]*/", path):
        return "; only a shell knows ~ at the start of a word: write the whole path"
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", path):
        return "; addresses are not followed: use a file of this machine"
    return ""


def printable(text: str) -> str:
    """Escape control characters except line ends and tabs: terminals obey them."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", lambda found: f"\\x{ord(found[0]):02x}", text)


def is_blank(text: str) -> bool:
    """Tell whether a text shows nothing: spaces, control characters, zero-width characters."""
    return not any(character.isprintable() and not character.isspace() for character in text)


def shortened(value: str, most: int = 80) -> str:
    """Cut a text for messages."""
    return value if len(value) <= most else value[: most - 3] + "..."


class _Refused(Exception):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise _Refused
    return values


def _whole(digits: str) -> int:
    if len(digits) > DIGITS:
        raise _Refused
    return int(digits)


def _is_deep(values: Any) -> bool:
    level = [values]
    for _ in range(DEEPEST + 1):
        parts = [v.values() if isinstance(v, dict) else v for v in level if isinstance(v, dict | list)]
        level = [inner for part in parts for inner in part]
        if not level:
            return False
    return True


def _where(text: str, line: int) -> str:
    """Describe the first repeated key, too deep bracket or giant number of a text, with its line."""
    keys: list[dict[str, int]] = []
    token = ""
    for found in _TOKEN.finditer(text):
        before, token = token, found[0]
        if token == "\n":
            line, token = line + 1, before
        elif token in "{[":
            keys.append({})
            if len(keys) > DEEPEST:
                return f"line {line}: is nested more than {DEEPEST} deep"
        elif token in "}]" and keys:
            keys.pop()
        elif token == ":" and keys and before.startswith('"'):
            name = json.loads(before)
            if name in keys[-1]:
                twice = f"the key {shortened(name)!r} is given twice, first in line {keys[-1][name]}"
                return f"line {line}: {twice}"
            keys[-1][name] = line
        elif (number := _NUMBER.match(token)) and not number[2] and len(number[1]) > DIGITS:
            return f"line {line}: a number of {len(number[1])} digits"
    raise AssertionError("one of them is why the text was refused")
