"""Room on the disk: what errors say that there is none, and a reserve for what has to be written even then.

To delete a video, or to note that a job has ended, a few pages have to be written first. So a file holds some room; it is given up when a
change of that kind finds no other, and taken again once there is plenty.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import RunError

RESERVE_BYTES = 256 * 2**10
ENOUGH_BYTES = 2**20  # free, for a job to be tried again
_SCARCE_BYTES = 2**16
_FULL = (errno.ENOSPC, errno.EDQUOT)
_MAY_BE_FULL = (
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
)  # as SQLite calls it where its own files cannot grow


class StorageError(RunError):
    """Jobs cannot be kept or read: the file is damaged, gone, or somebody else's."""


class StorageFull(StorageError):
    """There is no room on the disk; what was to be kept is not."""


class Reserve:
    """Some room in a folder, held by a file."""

    def __init__(self, folder: Path):
        self._path = folder / "reserve"

    def take(self) -> None:
        """Hold it, where there is plenty and it is not held yet."""
        with suppress(OSError):
            if self._size() < RESERVE_BYTES and free_bytes(self._path.parent) > RESERVE_BYTES + ENOUGH_BYTES:
                fd = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600)
                try:
                    os.posix_fallocate(fd, 0, RESERVE_BYTES)
                finally:
                    os.close(fd)

    def give(self) -> bool:
        """Give it up; whether there was any."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0


def free_bytes(folder: Path) -> int:
    """Return the bytes that may be written to a folder's disk, as far as the system knows."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def is_full(error: BaseException | None) -> bool:
    """Return whether an error, or one that it comes from, is about a disk without room."""
    while error is not None:
        if isinstance(error, StorageFull) or (isinstance(error, OSError) and error.errno in _FULL):
            return True
        error = error.__cause__
    return False


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Errors of SQLite and of the system as StorageError; StorageFull where only room is missing. path: of the file."""
    try:
        yield
    except sqlite3.Error as error:
        code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
        if code == sqlite3.SQLITE_FULL or (code in _MAY_BE_FULL and _is_scarce(path.parent)):
            raise StorageFull(f"{path.parent}: the disk is full") from error
        raise StorageError(f"{path}: cannot be used: {error}") from error
    except OSError as error:
        if is_full(error):
            raise StorageFull(f"{path.parent}: the disk is full") from error
        raise StorageError(f"{path}: cannot be used: {error.strerror or error}") from error


def _is_scarce(folder: Path) -> bool:
    try:
        return free_bytes(folder) < _SCARCE_BYTES
    except OSError:
        return False
