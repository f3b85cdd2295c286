"""Prompt schedules: parse what `--schedule`, a table's column and the page accept."""

import json
import re
from pathlib import Path
from typing import Any

from .. import texts
from ..errors import RequestError

Schedule = tuple[tuple[int, str], ...]
EXAMPLE = "48: A dog running on the beach"
_LINE = re.compile("([^:：]*)[:：](.*)", re.DOTALL)  # a Chinese keyboard types the wide one
_CLOCK = re.compile(r"\s*\d+[:：]\d\d(?!\w)")  # 01:30, which would be frame 1 with the prompt "30"


def read_schedule(path: Path) -> Schedule:
    """Read a schedule file as `parse_schedule` does; raise RequestError for an empty one too."""
    try:
        text = texts.read_text(path)
    except FileNotFoundError:
        raise RequestError("schedule", str(path), texts.why_no_file(path)) from None
    except OSError as error:
        raise RequestError("schedule", str(path), f"cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise RequestError("schedule", str(path), str(error)) from error
    entries = parse_schedule(text, str(path))
    if not entries:
        raise RequestError("schedule", str(path), f"contains no prompt; write for example: {EXAMPLE}")
    return entries


def parse_schedule(text: str, said: object = None) -> Schedule:
    """Return (first frame, prompt) pairs, ascending; empty for a text without entries.

    Accepts lines "FRAME: prompt" (empty lines and lines starting with # are skipped), or JSON: an object
    {"0": "prompt", "48": "prompt"} or a list [[0, "prompt"], [48, "prompt"]]. Raise RequestError naming the
    faulty line or entry. said: the argument's value in errors.
    """
    text = text.removeprefix("\ufeff")
    if text.lstrip()[:1] in ("{", "["):
        try:
            values = texts.parse_json(text)
        except ValueError as error:
            raise RequestError("schedule", said, f"is not valid JSON: {error}") from None
        return schedule_of(values, said)
    return _of_lines(text, said)


def schedule_of(values: Any, said: object) -> Schedule:
    """Return the schedule of a JSON object or list, see `parse_schedule`; an object's entries are sorted."""
    pairs = list(values.items()) if isinstance(values, dict) else values
    if not isinstance(pairs, list | tuple):
        raise RequestError(
            "schedule", said, f"is {_shown(values)}; write for example: [[0, prompt], [48, prompt]]"
        )
    entries: list[tuple[int, str]] = []
    for pair in pairs:
        try:
            frame, prompt = pair
            entries.append((_frame(frame), prompt.strip()))
        except (TypeError, ValueError, AttributeError):
            raise RequestError(
                "schedule", said, f"entry {_shown(pair)} should be a frame and a prompt"
            ) from None
    if isinstance(values, dict):
        entries.sort(key=lambda entry: entry[0])
    _check(entries, [f"entry {_shown(list(entry))}" for entry in entries], said)
    return tuple(entries)


def _of_lines(text: str, said: object) -> Schedule:
    entries: list[tuple[int, str]] = []
    places: list[str] = []
    for number, line in enumerate(texts.lines(text), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _LINE.fullmatch(line)
        try:
            if found is None:
                raise ValueError("no colon")
            if _CLOCK.match(line):
                raise ValueError("a time")
            entries.append((_frame(found[1]), found[2].strip()))
        except ValueError:
            shown = texts.shortened(line.strip())
            why = "; times are counted in frames" if _CLOCK.match(line) else ""
            raise RequestError(
                "schedule", said, f"line {number} is {shown!r}{why}; write for example: {EXAMPLE}"
            ) from None
        places.append(f"line {number}")
    _check(entries, places, said)
    return tuple(entries)


def _check(entries: list[tuple[int, str]], places: list[str], said: object) -> None:
    """Raise RequestError for an entry without a prompt or out of order."""
    before = -1
    for (frame, prompt), place in zip(entries, places, strict=True):
        if not prompt:
            raise RequestError("schedule", said, f"{place} has no prompt; write for example: {EXAMPLE}")
        if frame <= before:
            why = "is there twice" if frame == before else f"comes after frame {before}"
            raise RequestError("schedule", said, f"{place}: frame {frame} {why}; frames must be ascending")
        before = frame


def _frame(value: Any) -> int:
    frame = texts.whole_number(value)
    if frame < 0:
        raise ValueError("negative")
    return frame


def _shown(value: Any) -> str:
    return texts.shortened(json.dumps(value, default=str, ensure_ascii=False))
