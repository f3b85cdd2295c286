"""Standard output and error that never stop the work: full, closed, or of a terminal that cannot show every letter."""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import sys
from typing import TextIO

_RAW = "streamingt2v.raw"


def prepare() -> None:
    """Make this process's streams so, once, as it starts.

    What a stream's encoding has no letter for is written as the file system's bytes, so that a path that is printed is the path. A stream
    that was closed leads nowhere, and no file that is opened later gets its number, and with it the messages of libraries.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    codecs.register_error(_RAW, _as_bytes)
    sys.stdout, sys.stderr = _stream(sys.stdout, 1), _stream(sys.stderr, 2)


def failure() -> OSError | None:
    """Return the error that kept printed text from stdout; None if there was none."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.error if isinstance(raw, _Patient) else None


def was_left(error: OSError) -> bool:
    """Return whether the reader of a pipe has gone, having seen enough, as `head` does."""
    return error.errno == errno.EPIPE


class _Patient(io.FileIO):
    """Writes what it can, remembers the first error, and goes on as if there was none."""

    error: OSError | None = None

    def write(self, data: bytes | memoryview) -> int:  # type: ignore[override]
        try:
            while (written := super().write(data)) is None:  # somebody made the terminal non-blocking
                select.select([], [self.fileno()], [])
            return written
        except OSError as error:
            self.error = self.error or error
            return len(data)


def _stream(old: TextIO | None, number: int) -> TextIO:
    if old is not None:
        old.flush()
    encoding = (old and old.encoding) or "utf-8"
    buffer = io.BufferedWriter(_Patient(number, "w", closefd=False))
    return io.TextIOWrapper(buffer, encoding, _RAW, line_buffering=number == 2 or bool(old and old.isatty()))


def _as_bytes(error: UnicodeError) -> tuple[bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    try:
        return os.fsencode(letters), error.end
    except UnicodeEncodeError:
        return letters.encode("ascii", "backslashreplace"), error.end
