"""Errors as clients see them, over HTTP and WebSockets: one mapping, without paths of this machine."""

import logging
import re
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from ..errors import MediaError, RequestError, RunError, StreamingT2VError
from ..jobs.files import NotReady
from ..jobs.job import Conflict, NoSuchJob, QueueFull
from ..jobs.room import is_full
from ..jobs.settings import Settings

log = logging.getLogger(__name__)
TELL_SECONDS = 10.0  # between log messages about failed requests
_LOST = "a file of the video is gone"
_UNREADABLE = "a file cannot be read or written; the server's log says why"


@dataclass(frozen=True)
class Refusal:
    """An error for a client. status: of HTTP. param: the wrong argument. headers: of the response."""

    status: int
    code: str
    message: str
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


_KINDS: dict[type[Exception], Refusal] = {
    RequestError: Refusal(400, "invalid_request", ""),
    MediaError: Refusal(400, "invalid_media", ""),
    NoSuchJob: Refusal(404, "not_found", ""),
    QueueFull: Refusal(429, "queue_full", "", headers={"Retry-After": "5"}),
    Conflict: Refusal(409, "conflict", ""),
    NotReady: Refusal(409, "not_ready", "", headers={"Retry-After": "1"}),
    FileNotFoundError: Refusal(404, "not_found", _LOST),
    StreamingT2VError: Refusal(507, "storage_error", _UNREADABLE),
    OSError: Refusal(507, "storage_error", _UNREADABLE),
    Exception: Refusal(500, "internal_error", "it failed; the server's log says why"),
}
"""Kinds of errors, subclasses first; without a message, the error's own is for clients."""

KINDS = (*_KINDS, ValidationError, RequestValidationError)
"""Errors that `Refusals.of` maps."""


class Refusals:
    """The errors of one server."""

    def __init__(self, settings: Settings):
        models = (Path(model).parent for model in settings.models if Path(model).is_absolute())
        here = (settings.folder, tempfile.gettempdir(), Path.home(), sys.prefix, Path(__file__).parents[2])
        self._folders = sorted({str(path) for path in (*here, *models)} - {"/"}, key=len, reverse=True)
        self._told = 0.0

    def of(self, error: Exception) -> Refusal:
        """Return an error for a client; log what it does not say."""
        if isinstance(error, ValidationError | RequestValidationError):
            first = error.errors()[0]
            where = [str(part) for part in first["loc"] if part not in ("body", "query", "path", "header")]
            name = ".".join(where)
            return Refusal(400, "invalid_request", f"{name[:200]}: {first['msg']}", name or None)
        self._tell(error)
        if is_full(error):
            full = "the disk is full; delete videos, or try again later"
            return Refusal(507, "storage_full", full, headers={"Retry-After": "30"})
        known = next(refusal for kind, refusal in _KINDS.items() if isinstance(error, kind))
        message = known.message or self._without_folders(str(error))
        return Refusal(known.status, known.code, message, getattr(error, "argument", None), known.headers)

    def _tell(self, error: Exception) -> None:
        """Log an error whose details clients do not see, at most once in `TELL_SECONDS`."""
        is_told = isinstance(error, RunError | OSError) and not isinstance(error, NotReady)
        if is_told and time.monotonic() > self._told + TELL_SECONDS:
            self._told = time.monotonic()
            log.error("a request failed: %s", error)

    def _without_folders(self, text: str) -> str:
        """Return a message without this machine's paths; paths that the client sent stay."""
        for folder in self._folders:
            text = re.sub(rf"{re.escape(folder)}(/[^\s:,;'\"]*)?", lambda found: Path(found[0]).name, text)
        return text
