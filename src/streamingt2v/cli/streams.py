"""Standard streams that never raise: on a full disk, a closed pipe or a terminal that is not UTF-8."""

import codecs
import errno
import io
import os
import select
import sys
from typing import TextIO

_RAW = "streamingt2v.raw"


def prepare() -> None:
    """Replace stdout and stderr of this process; call once at its start.

    Characters outside a stream's encoding are written as the bytes of the file system, so printed paths stay
    valid. Closed streams are opened on os.devnull, so that no later file takes their descriptor.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free descriptor: this one
    codecs.register_error(_RAW, _as_bytes)
    sys.stdout, sys.stderr = _stream(sys.stdout, 1), _stream(sys.stderr, 2)


def failure() -> OSError | None:
    """Return the first error of writing stdout, or None."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.error if isinstance(raw, _Patient) else None


def was_left(error: OSError) -> bool:
    """Return whether the reader of the pipe has exited, as `head` does."""
    return error.errno == errno.EPIPE


class _Patient(io.FileIO):
    """Discard what cannot be written; keep the first error."""

    error: OSError | None = None

    def write(self, data: bytes | memoryview) -> int:  # type: ignore[override]
        try:
            while (written := super().write(data)) is None:  # a non-blocking terminal
                select.select([], [self.fileno()], [])
            return written
        except OSError as error:
            self.error = self.error or error
            return len(data)


def _stream(old: TextIO | None, number: int) -> TextIO:
    if old is not None:
        old.flush()
    encoding = (old and old.encoding) or "utf-8"
    buffer = io.BufferedWriter(_Patient(number, "w", closefd=False))  # type: ignore[type-var]  # typeshed's stream also reads
    return io.TextIOWrapper(buffer, encoding, _RAW, line_buffering=number == 2 or bool(old and old.isatty()))


def _as_bytes(error: UnicodeError) -> tuple[bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    try:
        return os.fsencode(letters), error.end
    except UnicodeEncodeError:
        return letters.encode("ascii", "backslashreplace"), error.end
