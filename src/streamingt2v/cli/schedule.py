"""A file of prompts by frame: what `--schedule` reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import RequestError

Schedule = tuple[tuple[int, str], ...]
EXAMPLE = "48: A dog running on the beach"


def read_schedule(path: Path) -> Schedule:
    """(first frame, prompt) pairs in the file's order; RequestError names the line or entry that is wrong.

    Two ways to write it: lines "FRAME: prompt" (empty lines and lines that start with # are skipped), or JSON, either an
    object {"0": "prompt", "48": "prompt"} or a list [[0, "prompt"], [48, "prompt"]].
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RequestError("schedule", str(path), "no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError("schedule", str(path), f"cannot be read as text ({error})") from error
    entries = _from_json(path, text) if text.lstrip()[:1] in ("{", "[") else _from_lines(path, text)
    if not entries:
        raise RequestError("schedule", str(path), f"holds no prompt; write for example: {EXAMPLE}")
    return entries


def _from_lines(path: Path, text: str) -> Schedule:
    entries = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        frame, colon, prompt = line.partition(":")
        if not colon or not frame.strip().isdecimal():
            raise RequestError("schedule", str(path), f"line {number} is {line.strip()!r}; write for example: {EXAMPLE}")
        entries.append((int(frame), prompt.strip()))
    return tuple(entries)


def _from_json(path: Path, text: str) -> Schedule:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise RequestError("schedule", str(path), f"is no valid JSON: {error}") from error
    return schedule_of(values, str(path))


def schedule_of(values: Any, said: object) -> Schedule:
    """The schedule of a JSON object or list, see `read_schedule`; RequestError, for the argument's value `said`, names a wrong entry."""
    pairs = list(values.items()) if isinstance(values, dict) else values
    if not isinstance(pairs, list):
        raise RequestError("schedule", said, f"is {json.dumps(values)}; write for example: [[0, prompt], [48, prompt]]")
    entries = []
    for pair in pairs:
        if not (isinstance(pair, list | tuple) and len(pair) == 2 and str(pair[0]).isdecimal() and isinstance(pair[1], str)):
            raise RequestError("schedule", said, f"entry {json.dumps(pair)} should be a frame and a prompt")
        entries.append((int(pair[0]), pair[1].strip()))
    return tuple(entries)
