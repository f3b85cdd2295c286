"""Files that are either there whole or not at all, whatever happens to the process or the power.

All file output of this package goes through here: write to a temporary name beside the target, flush to the disk, rename.
Errors are plain `OSError`; the callers say what they were doing.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

_PART = ".part"
_LONG = 100
"""Bytes of a name from which on the one in the making is a short one: file systems take 143 to 255."""


def finished_name(name: str) -> str | None:
    """The name that a file in the making will get, or None if it is not in the making."""
    return name[1 : -len(_PART)] if name.startswith(".") and name.endswith(_PART) else None


def write_file(path: Path, data: bytes) -> None:
    """Put `data` at `path` durably: after return it survives a power cut, before it the old file (or none) is there."""
    write_named_later(path, data)
    sync_folder(path.parent)


def write_named_later(path: Path, data: bytes) -> None:
    """Write like `write_file`, without `sync_folder`, which then makes several names durable at once."""
    with _renamed(path) as part:
        _put(part, data)
        sync_file(part)


def write_unsynced(path: Path, data: bytes) -> None:
    """Put `data` at `path` so that no reader ever sees half of it; for what can be made again after a power cut."""
    with _renamed(path) as part:
        _put(part, data)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder; what the block wrote there is flushed and renamed to `path` when it ends well.

    When it does not, the temporary file is deleted and `path` stays as it was. As with `cp`: where `path` is a link, what it leads to is
    replaced, and a link to nothing is an OSError; a file that is replaced keeps its permissions.
    """
    path = _behind_links(path)
    with _renamed(path) as part:
        yield part
        with contextlib.suppress(OSError):
            part.chmod(stat.S_IMODE(path.stat().st_mode))
        sync_file(part)
    sync_folder(path.parent)


def try_file(path: Path) -> None:
    """OSError if `replacing` could not put a file at `path` now: a name too long or of bytes that cannot be, a folder that cannot be
    written, a link to nothing. Tried by doing it; nothing is left, and what is there stays as it is.
    """
    path = _behind_links(path)
    for trial in (_part_of(path), path):
        with contextlib.suppress(FileExistsError):
            os.close(os.open(trial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
            trial.unlink()


def append(path: Path, size: int, data: bytes) -> None:
    """Put `data` after the first `size` bytes of the file, durably; what stood behind them is dropped first."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        os.ftruncate(fd, size)
        os.lseek(fd, size, os.SEEK_SET)
        _write_all(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)


def cut(path: Path, size: int) -> None:
    """Shorten the file to its first `size` bytes, durably."""
    append(path, size, b"")


def sync_file(path: Path) -> None:
    """Wait until the file's content is on the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_folder(folder: Path) -> None:
    """Wait until the folder's list of names is on the disk."""
    try:
        sync_file(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot sync a folder
            raise


def sha256_of(path: Path) -> str:
    """Hex digest of the file's content, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def lock(path: Path, shared: bool = False, mode: int = 0o666) -> int | None:
    """Take the lock file for this process until `unlock`: a handle for it, or None when somebody else holds it.

    shared: others may hold it as well, if they share it too. mode: of a file that is made; who can open it can hold it. The system drops
    the lock when the process ends, however it ends.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, mode)
    except PermissionError:  # another user's, left from another day: to hold it, reading is enough
        fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except OSError:
        os.close(fd)
        raise
    return fd


def unlock(handle: int) -> None:
    """Give the lock back."""
    os.close(handle)


@contextlib.contextmanager
def _renamed(path: Path) -> Iterator[Path]:
    part = _part_of(path)
    try:
        yield part
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def _part_of(path: Path) -> Path:
    """Beside the file; of a name too long to get longer, a digest."""
    name = (
        path.name
        if len(os.fsencode(path.name)) <= _LONG
        else hashlib.sha256(os.fsencode(path.name)).hexdigest()[:32]
    )
    return path.with_name(f".{name}{_PART}")


def _behind_links(path: Path) -> Path:
    return Path(os.path.realpath(path, strict=True)) if path.is_symlink() else path


def _put(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        _write_all(fd, data)
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
