"""Bring the folder of an interrupted run back to the last commit that can be continued."""

from pathlib import Path

from .. import durable
from ..errors import RunError
from .folder import INIT, may_be_stray
from .header import Header, input_hashes
from .journal import Journal

STATES_KEPT = 2


def recover(path: Path, header: Header, journal: Journal) -> None:
    """Rewind the journal as far as needed, and delete our files that no entry needs.

    RunError if a committed file is damaged, or an input is not the file that the run began with.
    """
    segments = ((entry.segment, entry.segment_sha256) for entry in journal.entries)
    for name, digest in [(INIT, header.init_sha256), *segments]:
        if not _is_intact(path / name, digest):
            raise RunError(f"{path / name}: is missing or damaged; this run cannot be resumed")
    keep = _resume_point(path, journal)
    if keep < len(journal.entries) or journal.path.exists():
        journal.rewind(keep)
    if not journal.finished and input_hashes(header.request) != header.inputs:
        names = ", ".join(header.request.files().values())
        raise RunError(f"{path}: its input {names} is not the file that the run began with")
    kept = {entry.segment for entry in journal.entries}
    kept |= {entry.state for entry in journal.entries[-STATES_KEPT:] if entry.state is not None}
    for file in list(path.iterdir()):
        if may_be_stray(file.name) and file.name not in kept:
            file.unlink(missing_ok=True)


def _resume_point(path: Path, journal: Journal) -> int:
    """Return how many entries can be kept: a damaged newest state costs its chunk."""
    damaged = []
    for count in range(len(journal.entries), 0, -1):
        entry = journal.entries[count - 1]
        if entry.kind == "source" or entry.final:
            return count
        if entry.state is not None:
            if _is_intact(path / entry.state, entry.state_sha256):
                return count
            damaged.append(path / entry.state)
        if len(damaged) >= STATES_KEPT:
            raise RunError(f"{damaged[0]}: is missing or damaged; this run cannot be resumed")
    return 0


def _is_intact(path: Path, digest: str | None) -> bool:
    return path.is_file() and durable.sha256_of(path) == digest
