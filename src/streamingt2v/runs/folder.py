"""The files of a run folder by their names: which are ours, which may be deleted, and taking a folder for a new run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .. import durable
from ..errors import RunError

REQUEST, JOURNAL, PROMPTS, INIT = "request.json", "journal.jsonl", "prompts.jsonl", "init.mp4"
PLAYLIST, LOCK, VIDEO = "playlist.m3u8", "lock", "video.mp4"
_COMING_AND_GOING = re.compile(r"seg_\d+\.m4s|state_\d+\.safetensors")


def is_ours(name: str) -> bool:
    """A file that a run consists of; the finished video is not one."""
    return name in (REQUEST, JOURNAL, PROMPTS, INIT, PLAYLIST, LOCK) or bool(
        _COMING_AND_GOING.fullmatch(name)
    )


def comes_and_goes(name: str) -> bool:
    """A segment or a state by its name."""
    return bool(_COMING_AND_GOING.fullmatch(name))


def may_be_stray(name: str) -> bool:
    """One of our files that come and go: a segment, a state, or anything of ours in the making."""
    half = durable.finished_name(name)
    return bool(_COMING_AND_GOING.fullmatch(name)) or (half is not None and (half == VIDEO or is_ours(half)))


def in_the_way(folder: Path) -> list[str]:
    """Names of the files that keep a new run out of an existing folder, sorted. Looks only, and loads nothing heavy.

    What a `create` or `discard` left that was cut short is not in the way: our files with the lock among them, but no request.
    """
    names = sorted(file.name for file in folder.iterdir())
    are_leftovers = LOCK in names and REQUEST not in names
    return [name for name in names if not (are_leftovers and (is_ours(name) or may_be_stray(name)))]


def locked(folder: Path) -> int:
    """The handle of the folder's lock, for `durable.unlock`. RunError if another process holds it."""
    handle = durable.lock(folder / LOCK)
    if handle is None:
        raise RunError(f"{folder}: another process is writing this run; wait for it or stop it")
    return handle


@contextmanager
def taken(folder: Path) -> Iterator[int]:
    """A folder for a new run, made where it is missing, cleared of leftovers, and locked: the lock's handle.

    When the block fails, everything that was made since is removed again. RunError if the folder is in use.
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
                _delete(
                    folder,
                    {file.name for file in folder.iterdir() if is_ours(file.name) or may_be_stray(file.name)}
                    - before,
                )
            finally:
                durable.unlock(lock)
            raise
    except BaseException:
        for empty in made:
            with suppress(OSError):
                empty.rmdir()
        raise


def delete_run(folder: Path) -> None:
    """Delete all our files in it: the request first, without which the rest is no run any more."""
    names = {file.name for file in folder.iterdir() if is_ours(file.name) or may_be_stray(file.name)}
    (folder / REQUEST).unlink(missing_ok=True)
    _delete(folder, names)


def _check_free(folder: Path, unusable: list[str]) -> None:
    if (folder / REQUEST).exists():
        raise RunError(
            f"{folder}: holds a run already; go on with it by `streamingt2v resume {folder}`, or take another folder"
        )
    if unusable:
        raise RunError(f"{folder}: is not empty (it holds {unusable[0]}); take an empty or a new folder")


def _delete(folder: Path, names: set[str]) -> None:
    """The lock last: with it there, the rest is known as leftovers."""
    for name in sorted(names, key=lambda name: name == LOCK):
        (folder / name).unlink(missing_ok=True)
