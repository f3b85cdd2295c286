"""Prompt changes during a run, saved before the first chunk that follows them begins.

A resumed run thereby gives its chunks the same prompts, and the video's metadata has them.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from .. import durable
from ..config.values import parse_object
from .journal import whole_lines

Schedule = tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Change:
    """A prompt that took over. number: ascending, with gaps for changes that no chunk began with.

    frame: first of the chunk that it took over with. after: first frame of the chunk before, -1 without one.
    """

    number: int
    frame: int
    after: int
    prompt: str


@dataclass
class PromptLog:
    """A run's prompt changes, in order. size: bytes they take in the file."""

    path: Path
    changes: list[Change] = field(default_factory=list)
    size: int = 0

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read all changes but a torn last line. RunError if another line is damaged."""
        log = cls(path)
        for change, size in whole_lines(path, lambda line, _: Change(**parse_object(Change, line))):
            log.changes.append(change)
            log.size += size
        return log

    def append(self, change: Change) -> None:
        """Write a change durably, or raise OSError."""
        line = json.dumps(dataclasses.asdict(change)).encode() + b"\n"
        durable.append(self.path, self.size, line)
        self.size += len(line)
        self.changes.append(change)

    def merged(self, schedule: Schedule) -> Schedule:
        """Merge the changes into a schedule, without the entries that they replaced."""
        for change in self.changes:
            kept = [entry for entry in schedule if not change.after < entry[0] <= change.frame]
            schedule = tuple(sorted([*kept, (change.frame, change.prompt)]))
        return schedule
