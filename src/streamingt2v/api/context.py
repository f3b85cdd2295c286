"""Objects and dependencies that the routes share."""

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeVar

from fastapi import Depends, Header, Path
from fastapi.requests import HTTPConnection
from starlette.concurrency import run_in_threadpool

from ..jobs.job import Job, NoSuchJob, QueueFull
from ..jobs.notices import Notices
from ..jobs.service import JobService
from .metrics import Metrics
from .refusals import Refusals
from .schemas import ErrorBody
from .uploads import Uploads

AT_ONCE = 2  # stills drawn at the same time
WAITING = 64  # requests that may wait for stills
Drawn = TypeVar("Drawn")
_ID = re.compile(r"video_[0-9a-f]{24}")
_ERROR = {"application/json": {"schema": {"$ref": f"#/components/schemas/{ErrorBody.__name__}"}}}
REFUSALS: dict[int | str, dict] = {
    "4XX": {"content": _ERROR, "description": "Refused; the error says what to change."}
}


@dataclass(frozen=True)
class Context:
    """The service and its companions, one per application."""

    service: JobService
    notices: Notices
    uploads: Uploads
    metrics: Metrics
    refusals: Refusals

    _turn: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    _waiting: list[None] = field(default_factory=list)
    open: dict[str, int] = field(default_factory=lambda: {"sessions": 0, "streams": 0})

    async def drawn(self, draw: Callable[[Job], Drawn], job: Job) -> Drawn:
        """Draw something that takes seconds. Requests wait here, so that they do not fill the thread pool.

        Raises QueueFull if many wait already.
        """
        if len(self._waiting) >= WAITING:
            raise QueueFull(WAITING, "stills are being made")
        self._waiting.append(None)
        try:
            async with self._turn:
                return await run_in_threadpool(draw, job)
        finally:
            self._waiting.pop()

    @contextmanager
    def counted(self, kind: Literal["sessions", "streams"]) -> Iterator[None]:
        """Count an open connection of a kind for the block. Raises QueueFull at the limit."""
        self.check_room(kind)
        self.open[kind] += 1
        try:
            with self.metrics.open.labels(kind).track_inprogress():
                yield
        finally:
            self.open[kind] -= 1

    def check_room(self, kind: Literal["sessions", "streams"]) -> None:
        """Raise QueueFull if the limit of open connections of a kind is reached."""
        most = getattr(self.service.limits, kind)
        if self.open[kind] >= most:
            raise QueueFull(most, f"{kind} are open")


def context(connection: HTTPConnection) -> Context:
    """Return the context of a connection's application."""
    return connection.app.state.context


In = Annotated[Context, Depends(context)]
_REPEATED = "Repeating a request with the same key returns the same video."
IdempotencyKey = Annotated[str | None, Header(max_length=200, description=_REPEATED)]


async def job(
    context: In, video_id: Annotated[str, Path(max_length=64, examples=["video_0123456789abcdef01234567"])]
) -> Job:
    """Return the job named in the path. Raises NoSuchJob."""
    if not _ID.fullmatch(video_id):
        raise NoSuchJob(f"there is no video {video_id[:64]!r}")
    return context.service.get(video_id)


async def room(context: In) -> None:
    """Raise QueueFull if too many streams are open: later, the status line is already sent."""
    context.check_room("streams")


Room = Annotated[None, Depends(room)]
TheJob = Annotated[Job, Depends(job)]
