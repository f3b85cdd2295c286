"""Prompts that were changed while a video was made, safe on the disk before the first chunk that follows them begins.

So an interrupted run asks nobody again: its chunks have the prompts that they had, and the video says of itself which.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

from .. import durable
from ..config.values import check_types
from ..errors import RunError
from ..texts import parse_json

Schedule = tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Change:
    """A prompt that took over. number: of the change, ascending; changes that were overtaken before a chunk began have none.

    frame: first of the chunk it took over with. after: first frame of the chunk before, -1 without one; frames as in the file.
    """

    number: int
    frame: int
    after: int
    prompt: str


@dataclass
class PromptLog:
    """The changes of a run, in order, and how many of the file's bytes they take."""

    path: Path
    changes: list[Change] = field(default_factory=list)
    size: int = 0

    @classmethod
    def read(cls, path: Path) -> PromptLog:
        """All changes; a torn last line is left out. RunError if another line is damaged."""
        log = cls(path)
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        for number, line in enumerate(lines, 1):
            try:
                values = parse_json(line)
                if not isinstance(values, dict):
                    raise ValueError("it is no object of JSON")
                check_types(Change, values)
                change = Change(**values)
            except (ValueError, TypeError) as error:
                if number < len(lines):
                    raise RunError(f"{path}: line {number} is damaged; this run cannot be resumed") from error
                break
            if line.endswith(b"\n"):
                log.changes.append(change)
                log.size += len(line)
        return log

    def append(self, change: Change) -> None:
        """Write a change of prompt durably. OSError if it cannot be."""
        line = json.dumps(dataclasses.asdict(change)).encode() + b"\n"
        durable.append(self.path, self.size, line)
        self.size += len(line)
        self.changes.append(change)

    def merged(self, schedule: Schedule) -> Schedule:
        """The schedule with the changes in it: what a request would have had to ask for from the start, without what they overtook."""
        for change in self.changes:
            kept = [entry for entry in schedule if not change.after < entry[0] <= change.frame]
            schedule = tuple(sorted([*kept, (change.frame, change.prompt)]))
        return schedule
