"""The journal of a run folder: one line of JSON for every committed segment. A line that is whole on the disk is the commit."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .. import durable
from ..config.values import check_types
from ..errors import RunError
from ..texts import parse_json
from .folder import comes_and_goes


@dataclass(frozen=True)
class Entry:
    """A committed segment.

    kind: "source" for frames of the video that is continued, "chunk" for new ones; `index` and `start` count within the kind.
    final: nothing of this kind follows. segment, state: file names; `state` is None where none is kept. Hashes are sha256 in hex.
    """

    kind: Literal["source", "chunk"]
    index: int
    start: int
    frames: int
    final: bool
    segment: str
    segment_sha256: str
    state: str | None = None
    state_sha256: str | None = None

    def to_line(self) -> bytes:
        """One line of JSON, its end included."""
        return json.dumps(dataclasses.asdict(self)).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Entry:
        """The entry of `to_line`; ValueError or TypeError if it is none."""
        values = parse_json(line)
        if not isinstance(values, dict):
            raise ValueError("it is no object of JSON")
        check_types(cls, values)
        entry = cls(**values)
        names = (entry.segment, *([entry.state] if entry.state is not None else []))
        if min(entry.index, entry.start, entry.frames - 1) < 0 or not all(
            comes_and_goes(name) for name in names
        ):
            raise ValueError("it tells of no segment of a run")
        if (entry.state is None) != (entry.state_sha256 is None):
            raise ValueError("a state and its hash come together")
        return entry

    def check_names(self, number: int) -> None:
        """ValueError unless it names the files of the segment with that number, counted from 0.

        A name from a journal is opened, and deleted when it is old; so it is compared, and never taken as it stands.
        """
        if (self.segment, self.state) != (
            segment_name(number),
            state_name(number) if self.state is not None else None,
        ):
            raise ValueError(f"{self.segment!r} and {self.state!r} are no names of its files")


def segment_name(number: int) -> str:
    """The file of the segment with that number."""
    return f"seg_{number:05d}.m4s"


def state_name(number: int) -> str:
    """The file of the state after the segment with that number."""
    return f"state_{number:05d}.safetensors"


@dataclass
class Journal:
    """The entries of a journal file, and how many of its bytes they take."""

    path: Path
    entries: list[Entry] = field(default_factory=list)
    size: int = 0

    @classmethod
    def read(cls, path: Path) -> Journal:
        """All entries; a torn last line is left out (and overwritten by the next `append`). RunError if another line is damaged."""
        journal, follows = cls(path), {"source": (0, 0), "chunk": (0, 0)}
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        for number, line in enumerate(lines, 1):
            try:
                entry = Entry.from_line(line)
                entry.check_names(number - 1)
                whole = line.endswith(b"\n")
            except (ValueError, TypeError) as error:
                if number < len(lines):
                    raise RunError(f"{path}: line {number} is damaged; this run cannot be resumed") from error
                whole = False
            if whole:
                if (entry.index, entry.start) != follows[entry.kind]:
                    raise RunError(
                        f"{path}: line {number} does not follow the one before; this run cannot be resumed"
                    )
                follows[entry.kind] = (entry.index + 1, entry.start + entry.frames)
                journal.entries.append(entry)
                journal.size += len(line)
        return journal

    def append(self, entry: Entry) -> None:
        """Commit the entry: when this returns it is on the disk. On OSError it is not, and the journal is as before."""
        line = entry.to_line()
        durable.append(self.path, self.size, line)
        self.size += len(line)
        self.entries.append(entry)

    def rewind(self, count: int) -> None:
        """Keep the first `count` entries only."""
        lines = self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []
        self.size = sum(map(len, lines[:count]))  # as they stand there
        del self.entries[count:]
        durable.cut(self.path, self.size)

    def of_kind(self, kind: str) -> list[Entry]:
        """The entries of one kind, in order."""
        return [entry for entry in self.entries if entry.kind == kind]
