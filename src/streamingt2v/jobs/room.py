"""Disk space: recognize errors of a full disk, and keep a reserve for changes that must succeed on one.

Deleting a video, or recording the end of a job, first writes a few pages. So a file reserves some space. It
is given up when such a change fails, and allocated again once there is plenty.
"""

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import RunError

RESERVE_BYTES = 256 * 2**10
ENOUGH_BYTES = 2**20  # free space left beside a new reserve
_SCARCE_BYTES = 2**16
_FULL = (errno.ENOSPC, errno.EDQUOT)
_MAY_BE_FULL = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)  # if SQLite's side files cannot grow


class StorageError(RunError):
    """Jobs cannot be stored or read: the file is damaged, missing, or not ours."""


class StorageFull(StorageError):
    """The disk is full; the change was not stored."""


class Reserve:
    """A file that reserves space in a folder."""

    def __init__(self, folder: Path):
        self._path = folder / "reserve"

    def take(self) -> None:
        """Allocate the file if there is plenty of space and it is missing."""
        with suppress(OSError):
            if self._size() < RESERVE_BYTES and free_bytes(self._path.parent) > RESERVE_BYTES + ENOUGH_BYTES:
                fd = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600)
                try:
                    os.posix_fallocate(fd, 0, RESERVE_BYTES)
                finally:
                    os.close(fd)

    def give(self) -> bool:
        """Delete the file; return whether there was one."""
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
    """Return the bytes available on a folder's disk, as the system reports them."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def is_full(error: BaseException | None) -> bool:
    """Return whether an error or one of its causes means a full disk."""
    while error is not None:
        if isinstance(error, StorageFull) or (isinstance(error, OSError) and error.errno in _FULL):
            return True
        error = error.__cause__
    return False


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Convert errors of SQLite and the system to StorageError, or StorageFull if the disk is full.

    path: the file.
    """
    try:
        yield
    except sqlite3.Error as error:
        code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
        if code == sqlite3.SQLITE_FULL or (code in _MAY_BE_FULL and _is_scarce(path.parent)):
            raise StorageFull(f"{path.parent}: the disk is full") from error
        raise StorageError(f"{path}: cannot be used: {error}") from error
    except UnicodeDecodeError as error:  # SQLite quotes a damaged schema in its message
        raise StorageError(f"{path}: is damaged") from error
    except OSError as error:
        if is_full(error):
            raise StorageFull(f"{path.parent}: the disk is full") from error
        raise StorageError(f"{path}: cannot be used: {error.strerror or error}") from error


def _is_scarce(folder: Path) -> bool:
    try:
        return free_bytes(folder) < _SCARCE_BYTES
    except OSError:
        return False
