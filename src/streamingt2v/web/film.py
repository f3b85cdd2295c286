"""Events of a video in the making for the page, as one stream: progress, each new segment, each prompt.

So a player asks for nothing that is not there, and no list is read again and again.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from ..api.context import Context, In, Room, TheJob
from ..api.schemas import Video
from ..jobs.job import Job
from ..jobs.service import JobService
from ..jobs.store import NoSuchJob
from ..runs.folder import JOURNAL, PROMPTS
from ..runs.journal import Journal
from ..runs.prompts import PromptLog
from .words import read_as

router = APIRouter(prefix="/page/videos/{video_id}", include_in_schema=False)


@router.get("/events", response_class=EventSourceResponse)
async def events(context: In, room: Room, job: TheJob) -> AsyncIterator[ServerSentEvent]:
    """An event `film`, now and after every change, and `done` when it has ended (or was deleted).

    A `film` has `video` (as the API has it), `segments` (those that no event before had), `prompts` (with the first frame of each),
    `pending` (the prompt that the next chunk will begin with, if it is another), `ahead` (how many jobs wait before this one),
    `refinable`, and `words` (how the newest prompt is read, see `words.read_as`).
    """
    told = _Told(context.service)
    with context.counted("streams"):
        while True:
            film = await run_in_threadpool(told.news, job)
            if film is not None:
                yield ServerSentEvent(event="film", data=film)
            if job.ended:
                break
            try:
                job = await _changed(context, job)
            except NoSuchJob:
                break
        yield ServerSentEvent(event="done", data={"id": job.id, "status": job.status})


async def _changed(context: Context, job: Job) -> Job:
    """The job once it may be another; of one that waits also after a while, since the queue before it moves."""
    return await context.notices.change(job)


class _Told:
    """Position of one listener."""

    def __init__(self, service: JobService):
        self._service = service
        self._revision = self._ahead = -1
        self._segments = 0

    def news(self, job: Job) -> dict[str, Any] | None:
        """Return what is new, or None if nothing is."""
        ahead = self._service.store.ahead(job)
        if (job.revision, ahead) == (self._revision, self._ahead):
            return None
        self._revision, self._ahead = job.revision, ahead
        segments = self._new_segments(job)
        prompts, pending = _prompts(self._service, job)
        refinable = job.ended and self._service.can_refine(job)
        model = self._service.settings.names.get(job.model)
        words = read_as(model, pending or prompts[-1][1]) if model else None
        film = {
            "segments": segments,
            "prompts": prompts,
            "pending": pending,
            "ahead": ahead,
            "refinable": refinable,
            "words": words,
        }
        return {"video": Video.of(job).model_dump(), **film}

    def _new_segments(self, job: Job) -> list[dict[str, Any]]:
        """Name, first frame, frames, and how many seconds ago it was there, of each."""
        folder, now = self._service.files.run(job.id), time.time()
        entries = Journal.read(folder / JOURNAL).entries
        source = sum(entry.frames for entry in entries if entry.kind == "source")
        segments = []
        for entry in entries[self._segments :]:
            try:
                age = max(0.0, now - (folder / entry.segment).stat().st_mtime)
            except FileNotFoundError:  # the job is just being deleted
                break
            start = entry.start + (source if entry.kind == "chunk" else 0)
            own = entry.kind == "chunk"
            segments.append(
                {
                    "name": entry.segment,
                    "start": start,
                    "frames": entry.frames,
                    "age": round(age, 2),
                    "new": own,
                }
            )
        self._segments += len(segments)
        return segments


def _prompts(service: JobService, job: Job) -> tuple[list[tuple[int, str]], str | None]:
    """(first frame, prompt) of those that the video has or was asked to have, and the one that waits for the next chunk."""
    log = PromptLog.read(service.files.run(job.id) / PROMPTS)
    taken = log.changes[-1].number if log.changes else 0
    newest = service.store.new_prompt(job.id, taken)
    return [(0, job.request.prompt), *log.merged(job.request.schedule)], newest[1] if newest else None
