"""Write files atomically and durably: complete or not at all, whatever happens to process or power.

All file output of this package goes through here: write to a temporary name beside the target, flush to the
disk, rename. Errors are plain `OSError`s, to which callers add what they were doing.
"""

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
"""Bytes of a name above which its temporary name is a digest: file systems take 143 to 255."""


def finished_name(name: str) -> str | None:
    """Return the final name of a temporary file, None if it is not one."""
    return name[1 : -len(_PART)] if name.startswith(".") and name.endswith(_PART) else None


def write_file(path: Path, data: bytes) -> None:
    """Write `data` to `path`; it survives a power cut from the return on. Until then the old file stays."""
    write_named_later(path, data)
    sync_folder(path.parent)


def write_named_later(path: Path, data: bytes) -> None:
    """Write like `write_file` but without `sync_folder`, so that one call can do it for several files."""
    with _renamed(path) as part:
        _put(part, data)
        sync_file(part)


def write_unsynced(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically for readers, for data that can be made again after a power cut."""
    with _renamed(path) as part:
        _put(part, data)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path in the same folder; flush and rename it to `path` when the block succeeds.

    Otherwise the temporary file is deleted and `path` stays as it was. As with `cp`, the target of a link is
    replaced, a link to nothing is an OSError, and a replaced file keeps its permissions.
    """
    path = _behind_links(path)
    with _renamed(path) as part:
        yield part
        with contextlib.suppress(OSError):
            part.chmod(stat.S_IMODE(path.stat().st_mode))
        sync_file(part)
    sync_folder(path.parent)


def try_file(path: Path) -> None:
    """Raise OSError if `replacing` could not write `path` now (name too long, no permission): create files.

    Nothing is left behind, and an existing file stays as it is.
    """
    path = _behind_links(path)
    for trial in (_part_of(path), path):
        with contextlib.suppress(FileExistsError):
            os.close(os.open(trial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
            trial.unlink()


def append(path: Path, size: int, data: bytes) -> None:
    """Write `data` durably after the first `size` bytes of the file, dropping what followed them."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        os.ftruncate(fd, size)
        os.lseek(fd, size, os.SEEK_SET)
        _write_all(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)


def cut(path: Path, size: int) -> None:
    """Truncate the file to `size` bytes, durably."""
    append(path, size, b"")


def sync_file(path: Path) -> None:
    """Flush a file's content to the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_folder(folder: Path) -> None:
    """Flush a folder's list of names to the disk."""
    try:
        sync_file(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot sync a folder
            raise


def sha256_of(path: Path) -> str:
    """Return the hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def lock(path: Path, shared: bool = False, mode: int = 0o666) -> int | None:
    """Lock a file until `unlock` or the end of the process; return a handle, None if another holds it.

    shared: others may hold it too, if they also share it. mode: permissions of a new lock file.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, mode)
    except PermissionError:  # another user's old file: reading is enough for a lock
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
    """Release a lock."""
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
    """Return the temporary path beside a file; long names become a digest."""
    name = os.fsencode(path.name)
    short = path.name if len(name) <= _LONG else hashlib.sha256(name).hexdigest()[:32]
    return path.with_name(f".{short}{_PART}")


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
