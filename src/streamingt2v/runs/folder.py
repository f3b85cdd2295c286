"""Names of a run folder's files: which are ours, which may be deleted; and folders for new runs."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .. import durable
from ..errors import RunError

REQUEST, JOURNAL, PROMPTS, INIT = "request.json", "journal.jsonl", "prompts.jsonl", "init.mp4"
PLAYLIST, LOCK, VIDEO = "playlist.m3u8", "lock", "video.mp4"
_PER_CHUNK = re.compile(r"seg_\d+\.m4s|state_\d+\.safetensors")


def is_ours(name: str) -> bool:
    """Tell whether a run consists of such files; the finished video is not one of them."""
    return name in (REQUEST, JOURNAL, PROMPTS, INIT, PLAYLIST, LOCK) or comes_and_goes(name)


def comes_and_goes(name: str) -> bool:
    """Tell whether it is the name of a segment or a state."""
    return bool(_PER_CHUNK.fullmatch(name))


def may_be_stray(name: str) -> bool:
    """Tell whether it is the name of a segment, a state, or of any unfinished file of ours."""
    finished = durable.finished_name(name)
    return comes_and_goes(name) or (finished is not None and (finished == VIDEO or is_ours(finished)))


def in_the_way(folder: Path) -> list[str]:
    """Return the sorted names of files that keep a new run out of an existing folder.

    Leftovers of an interrupted `create` or `discard` do not: our files with a lock, but no request.
    """
    names = sorted(file.name for file in folder.iterdir())
    are_leftovers = LOCK in names and REQUEST not in names
    return [name for name in names if not (are_leftovers and (is_ours(name) or may_be_stray(name)))]


def locked(folder: Path) -> int:
    """Lock a folder; return the handle for `durable.unlock`. RunError if another process holds the lock."""
    handle = durable.lock(folder / LOCK)
    if handle is None:
        raise RunError(f"{folder}: another process is writing this run; wait for it or stop it")
    return handle


@contextmanager
def taken(folder: Path) -> Iterator[int]:
    """Make a new run's folder where it is missing, clear it of leftovers and lock it; give the lock's handle.

    If the block fails, everything made since is removed. RunError if the folder is in use.
    """
    made = [f for f in (folder, *folder.parents) if not f.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        before = {file.name for file in folder.iterdir()}
        unusable = in_the_way(folder)
        lock = locked(folder)
        try:
            _check_free(folder, unusable)
            _delete(folder, before - {LOCK})
            yield lock
        except BaseException:
            try:
                _delete(folder, _our_files(folder) - before)
            finally:
                durable.unlock(lock)
            raise
    except BaseException:
        for empty in made:
            with suppress(OSError):
                empty.rmdir()
        raise


def delete_run(folder: Path) -> None:
    """Delete a run's files: the request first, without which the rest is no run."""
    names = _our_files(folder)
    (folder / REQUEST).unlink(missing_ok=True)
    _delete(folder, names)


def check_output(output: Path) -> None:
    """Raise RunError if a file could not be written there."""
    folder = output.absolute().parent
    if output.is_dir():
        raise RunError(f"{output}: is a folder; name a file in it")
    if not folder.is_dir():
        raise RunError(f"{folder}: no such folder to write {output.name} to; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise RunError(f"{folder}: cannot be written")


@contextmanager
def explained(path: Path, what: str) -> Iterator[None]:
    """Turn an OSError into a RunError that says what failed."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename and Path(error.filename) != path else ""
        raise RunError(f"{path}: {what}: {error.strerror or error}{where}") from error


def _our_files(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir() if is_ours(file.name) or may_be_stray(file.name)}


def _check_free(folder: Path, unusable: list[str]) -> None:
    if (folder / REQUEST).exists():
        fix = f"go on with it by `streamingt2v resume {folder}`, or take another folder"
        raise RunError(f"{folder}: holds a run already; {fix}")
    if unusable:
        raise RunError(f"{folder}: is not empty (it holds {unusable[0]}); take an empty or a new folder")


def _delete(folder: Path, names: set[str]) -> None:
    """Delete files, the lock last: while it is there, the others are known as leftovers."""
    for name in sorted(names, key=lambda name: name == LOCK):
        (folder / name).unlink(missing_ok=True)
