"""One event stream per video for the page: progress, new segments, prompts."""

import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from ..api.context import In, Room, TheJob
from ..api.schemas import Video
from ..jobs.job import Job, NoSuchJob
from ..jobs.service import JobService
from ..runs.folder import JOURNAL, PROMPTS
from ..runs.journal import Journal
from ..runs.prompts import PromptLog
from .words import read_as

router = APIRouter(prefix="/page/videos/{video_id}", include_in_schema=False)


@router.get("/events", response_class=EventSourceResponse)
async def events(context: In, room: Room, job: TheJob) -> AsyncIterator[ServerSentEvent]:
    """Send an event `film` now and after every change, and `done` when the job has ended or was deleted.

    `film`: `video` (as in the API), `segments` (new ones only), `prompts` (first frame and text of each),
    `pending` (a new prompt that the next chunk will use), `ahead` (jobs in the queue before this one),
    `refinable`, and `words` (see `words.read_as`).
    """
    progress = _Progress(context.service)
    with context.counted("streams"):
        while True:
            film = await run_in_threadpool(progress.news, job)
            if film is not None:
                yield ServerSentEvent(event="film", data=film)
            if job.ended:
                break
            try:
                job = await context.notices.change(job)
            except NoSuchJob:
                break
        yield ServerSentEvent(event="done", data={"id": job.id, "status": job.status})


class _Progress:
    """Position of one listener."""

    def __init__(self, service: JobService):
        self._service = service
        self._revision = self._ahead = -1
        self._segments = 0

    def news(self, job: Job) -> dict[str, Any] | None:
        """Return the next `film` event, or None if nothing has changed."""
        ahead = self._service.store.ahead(job)
        if (job.revision, ahead) == (self._revision, self._ahead):
            return None
        self._revision, self._ahead = job.revision, ahead
        segments = self._new_segments(job)
        prompts, pending = _prompts(self._service, job)
        model = self._service.settings.names.get(job.model)
        return {
            "video": Video.of(job).model_dump(),
            "segments": segments,
            "prompts": prompts,
            "pending": pending,
            "ahead": ahead,
            "refinable": job.ended and self._service.can_refine(job),
            "words": read_as(model, pending or prompts[-1][1]) if model else None,
        }

    def _new_segments(self, job: Job) -> list[dict[str, Any]]:
        """Return name, first frame, number of frames and age in seconds of each new segment."""
        folder, now = self._service.files.run(job.id), time.time()
        entries = Journal.read(folder / JOURNAL).entries
        source = sum(entry.frames for entry in entries if entry.kind == "source")
        segments = []
        for entry in entries[self._segments :]:
            try:
                age = max(0.0, now - (folder / entry.segment).stat().st_mtime)
            except FileNotFoundError:  # the job is being deleted
                break
            new = entry.kind == "chunk"
            segment = {"name": entry.segment, "start": entry.start + source * new, "frames": entry.frames}
            segments.append(segment | {"age": round(age, 2), "new": new})
        self._segments += len(segments)
        return segments


def _prompts(service: JobService, job: Job) -> tuple[list[tuple[int, str]], str | None]:
    """Return (first frame, prompt) of all prompts, and a prompt that waits for the next chunk, if any."""
    log = PromptLog.read(service.files.run(job.id) / PROMPTS)
    taken = log.changes[-1].number if log.changes else 0
    newest = service.store.new_prompt(job.id, taken)
    first = job.frames_done - job.new_frames if job.kind == "extension" else 0  # frames of the source
    later = [(first + frame, prompt) for frame, prompt in log.merged(job.request.schedule)]
    return [(first, job.request.prompt), *later], newest[1] if newest else None
