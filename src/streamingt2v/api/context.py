"""Objects that the routes share."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeVar

from fastapi import Depends, Header, Path
from fastapi.requests import HTTPConnection
from starlette.concurrency import run_in_threadpool

from ..jobs.job import Job
from ..jobs.notices import Notices
from ..jobs.service import JobService
from ..jobs.store import NoSuchJob, QueueFull
from .metrics import Metrics
from .schemas import ErrorBody
from .uploads import Uploads

AT_ONCE = 2  # stills and the like that are made at the same time
WAITING = 64  # requests for them
Drawn = TypeVar("Drawn")
_ID = re.compile(r"video_[0-9a-f]{24}")
_ERROR = {"application/json": {"schema": {"$ref": f"#/components/schemas/{ErrorBody.__name__}"}}}
REFUSALS: dict[int | str, dict] = {
    "4XX": {"content": _ERROR, "description": "It is refused; the error says what to change."}
}


@dataclass(frozen=True)
class Context:
    """The service and what is around it, one for an application."""

    service: JobService
    notices: Notices
    uploads: Uploads
    metrics: Metrics

    _turn: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    _waiting: list[None] = field(default_factory=list)
    open: dict[str, int] = field(default_factory=lambda: {"sessions": 0, "streams": 0})

    async def drawn(self, draw: Callable[[Job], Drawn], job: Job) -> Drawn:
        """Draw something that takes seconds and many may ask for. They wait here, not in the threads that all others need.

        `QueueFull` if many wait already.
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
        """One more open connection of a kind, for the time of the block. `QueueFull` if there are as many as may be."""
        self.check_room(kind)
        self.open[kind] += 1
        try:
            with self.metrics.open.labels(kind).track_inprogress():
                yield
        finally:
            self.open[kind] -= 1

    def check_room(self, kind: Literal["sessions", "streams"]) -> None:
        """`QueueFull` if as many connections of a kind are open as may be."""
        most = getattr(self.service.limits, kind)
        if self.open[kind] >= most:
            raise QueueFull(most, f"{kind} are open")


def context(connection: HTTPConnection) -> Context:
    """The context of the application that a connection came to."""
    return connection.app.state.context


In = Annotated[Context, Depends(context)]
IdempotencyKey = Annotated[
    str | None,
    Header(
        max_length=200,
        description="Sending the same request again with the same key gives the same video, not another.",
    ),
]


async def job(
    context: In, video_id: Annotated[str, Path(max_length=64, examples=["video_0123456789abcdef01234567"])]
) -> Job:
    """The job that a path names. `NoSuchJob` if there is none."""
    if not _ID.fullmatch(video_id):
        raise NoSuchJob(f"there is no video {video_id[:64]!r}")
    return context.service.get(video_id)


async def room(context: In) -> None:
    """Said before an answer begins that cannot be taken back. `QueueFull` if as many streams are open as may be."""
    context.check_room("streams")


Room = Annotated[None, Depends(room)]
TheJob = Annotated[Job, Depends(job)]
