"""A run folder's journal: one line of JSON per committed segment. A complete line on disk is the commit."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, TypeVar

from .. import durable
from ..config.values import parse_object
from ..errors import RunError
from .folder import comes_and_goes

if TYPE_CHECKING:  # imports FFmpeg
    from ..video.writer import Segment


Parsed = TypeVar("Parsed")


@dataclass(frozen=True)
class Entry:
    """A committed segment.

    kind: "source" for frames of the extended video, "chunk" for new ones; index, start: within the kind.
    final: nothing of this kind follows. segment, state: file names. Hashes are sha256.
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

    @classmethod
    def of(
        cls,
        number: int,
        kind: Literal["source", "chunk"],
        index: int,
        start: int,
        final: bool,
        segment: Segment,
        state: bytes | None,
    ) -> Self:
        """Make the entry of segment `number` of the run, and of the state after it."""
        return cls(
            kind=kind,
            index=index,
            start=start,
            frames=segment.frames,
            final=final,
            segment=_segment_name(number),
            segment_sha256=hashlib.sha256(segment.media).hexdigest(),
            state=_state_name(number) if state is not None else None,
            state_sha256=hashlib.sha256(state).hexdigest() if state is not None else None,
        )

    def to_line(self) -> bytes:
        """Return a line of JSON, newline included."""
        return json.dumps(dataclasses.asdict(self)).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Self:
        """Read a line of `to_line`; ValueError or TypeError for others."""
        entry = cls(**parse_object(cls, line))
        names = (entry.segment, *([entry.state] if entry.state is not None else []))
        if min(entry.index, entry.start, entry.frames - 1) < 0 or not all(map(comes_and_goes, names)):
            raise ValueError("not a segment of a run")
        if (entry.state is None) != (entry.state_sha256 is None):
            raise ValueError("a state and its hash come together")
        return entry

    def check_names(self, number: int) -> None:
        """Raise ValueError unless the file names are those of segment `number`, from 0.

        Files named in a journal are opened, and deleted when old; so no other name may pass.
        """
        state = _state_name(number) if self.state is not None else None
        if (self.segment, self.state) != (_segment_name(number), state):
            raise ValueError(f"{self.segment!r} and {self.state!r} are not the names of its files")


def whole_lines(path: Path, parse: Callable[[bytes, int], Parsed]) -> Iterator[tuple[Parsed, int]]:
    """Yield what each line of a log says, and its bytes; leave out a torn last line, which was not committed.

    parse: gets the line and its number from 0, and raises ValueError or TypeError for a damaged one. RunError
    if another line than the last is damaged.
    """
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    for number, line in enumerate(lines):
        try:
            parsed = parse(line, number)
        except (ValueError, TypeError) as error:
            if number + 1 == len(lines):
                return
            raise RunError(f"{path}: line {number + 1} is damaged; this run cannot be resumed") from error
        if line.endswith(b"\n"):
            yield parsed, len(line)


def _named_entry(line: bytes, number: int) -> Entry:
    entry = Entry.from_line(line)
    entry.check_names(number)
    return entry


def _segment_name(number: int) -> str:
    return f"seg_{number:05d}.m4s"


def _state_name(number: int) -> str:
    return f"state_{number:05d}.safetensors"


@dataclass
class Journal:
    """The entries of a journal file. size: bytes they take in it."""

    path: Path
    entries: list[Entry] = field(default_factory=list)
    size: int = 0

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read all entries but a torn last line. RunError if another line is damaged."""
        journal, follows = cls(path), {"source": (0, 0), "chunk": (0, 0)}
        for entry, size in whole_lines(path, _named_entry):
            if (entry.index, entry.start) != follows[entry.kind]:
                number = f"line {len(journal.entries) + 1}"
                raise RunError(f"{path}: {number} does not follow the one before; this run cannot be resumed")
            follows[entry.kind] = (entry.index + 1, entry.start + entry.frames)
            journal.entries.append(entry)
            journal.size += size
        return journal

    def append(self, entry: Entry) -> None:
        """Commit the entry durably. On OSError the journal is as before."""
        line = entry.to_line()
        durable.append(self.path, self.size, line)
        self.size += len(line)
        self.entries.append(entry)

    def rewind(self, count: int) -> None:
        """Keep only the first `count` entries."""
        lines = self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []
        self.size = sum(map(len, lines[:count]))  # as written, perhaps by another version
        del self.entries[count:]
        durable.cut(self.path, self.size)

    def of_kind(self, kind: str) -> list[Entry]:
        """Return the entries of one kind, in order."""
        return [entry for entry in self.entries if entry.kind == kind]

    @property
    def finished(self) -> bool:
        """Tell whether the final chunk is committed."""
        chunks = self.of_kind("chunk")
        return bool(chunks) and chunks[-1].final
