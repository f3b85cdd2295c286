"""Retry what fails, with growing pauses and without repeating the same log message."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import StreamingT2VError

log = logging.getLogger(__name__)
SHORTEST, LONGEST = 0.5, 30.0  # seconds between tries
TELL_SECONDS = 600.0  # before the same error is logged again


class Patience:
    """Retries of one action, called `what` in the log."""

    def __init__(self, what: str):
        self._what = what.strip("_").replace("_", " ")
        self._pause = self._until = self._told_at = 0.0
        self._told = ""

    @property
    def pause(self) -> float:
        """Return the seconds between the last try and the next."""
        return self._pause

    @property
    def is_over(self) -> bool:
        """Return whether the pause is over."""
        return time.monotonic() >= self._until

    @contextmanager
    def trying(self) -> Iterator[None]:
        """Run a try; log an exception of the block if it is new, and begin a pause."""
        try:
            yield
        except Exception as error:
            self.failed(error)
        else:
            self._pause = 0.0

    def failed(self, error: Exception) -> None:
        """Record a failed try."""
        self._pause = min(LONGEST, max(SHORTEST, 2 * self._pause))
        self._until = time.monotonic() + self._pause
        said = f"{type(error).__name__}: {error}"
        if said != self._told or time.monotonic() > self._told_at + TELL_SECONDS:
            self._told, self._told_at = said, time.monotonic()
            is_known = isinstance(error, StreamingT2VError | OSError)
            log.warning(
                "%s failed and is tried again: %s", self._what, error, exc_info=None if is_known else error
            )
