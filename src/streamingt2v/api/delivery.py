"""Delivery of a video: its file, also while it grows, stills, HLS, and events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import APIRouter, Response
from fastapi import Path as PathField
from fastapi.responses import FileResponse, StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from ..jobs.job import Job
from ..jobs.store import NoSuchJob
from .context import REFUSALS, Context, In, Room, TheJob
from .schemas import Video

router = APIRouter(prefix="/v1/videos/{video_id}", tags=["watching"], responses=REFUSALS)
FIRST_FRAMES_SECONDS = 8.0  # that a playlist waits for
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_TYPES = {".mp4": "video/mp4", ".m4s": "video/iso.segment"}
PLAYLIST_TYPE = "application/vnd.apple.mpegurl"


@router.get(
    "/content",
    summary="Download",
    response_class=FileResponse,
    responses={
        200: {
            "content": {"video/mp4": _BINARY, "image/webp": _BINARY, "image/jpeg": _BINARY},
            "description": "The file.",
        },
        206: {"content": {"video/mp4": _BINARY}, "description": "The range that was asked for."},
    },
)
async def content(
    context: In, job: TheJob, variant: Literal["video", "thumbnail", "spritesheet"] = "video"
) -> Response:
    """The video, its first frame (WebP), or a sheet of frames (JPEG).

    Of one in the making the video is the growing file: what there is at once, then every chunk as it comes, to the end. That is a
    fragmented MP4; once it is finished, it is a plain one, of which ranges can be asked for.
    """
    if variant == "thumbnail":
        return FileResponse(
            await context.drawn(context.service.files.thumbnail, job), media_type="image/webp"
        )
    if variant == "spritesheet":
        return FileResponse(
            await context.drawn(context.service.files.spritesheet, job), media_type="image/jpeg"
        )
    if job.ended and (
        context.service.files.finished(job.id).is_file() or not context.service.files.segments(job)
    ):
        return FileResponse(
            context.service.files.video(job), media_type="video/mp4", filename=f"{job.id}.mp4"
        )
    context.check_room("streams")
    return StreamingResponse(_growing(context, job), media_type="video/mp4")


@router.get("/events", summary="Progress as server-sent events", response_class=EventSourceResponse)
async def events(context: In, room: Room, job: TheJob) -> AsyncIterator[ServerSentEvent]:
    """An event `video` with the whole object now and after every change, and `done` when it has ended (or was deleted)."""
    with context.counted("streams"):
        while True:
            yield ServerSentEvent(event="video", id=str(job.revision), data=Video.of(job))
            if job.ended:
                break
            try:
                job = await _changed(context, job)
            except NoSuchJob:
                break
        yield ServerSentEvent(event="done", data={"id": job.id, "status": job.status})


@router.get(
    "/hls/playlist.m3u8",
    summary="HLS playlist",
    response_class=Response,
    responses={
        200: {
            "content": {PLAYLIST_TYPE: {"schema": {"type": "string"}}},
            "description": "What there is of it.",
        }
    },
)
async def playlist(context: In, job: TheJob) -> Response:
    """Return what there is of the video, for players; it grows until the video has ended. Waits some seconds for the first frames."""
    for _ in range(int(FIRST_FRAMES_SECONDS / 2)):
        if job.frames_done or job.ended:
            break
        job = await context.notices.change(job)
    return Response(
        context.service.files.playlist(job), media_type=PLAYLIST_TYPE, headers={"Cache-Control": "no-store"}
    )


@router.get(
    "/hls/{name}",
    summary="HLS segment",
    response_class=FileResponse,
    responses={
        200: {"content": {"video/iso.segment": _BINARY, "video/mp4": _BINARY}, "description": "The segment."}
    },
)
async def segment(
    context: In, job: TheJob, name: Annotated[str, PathField(max_length=40, examples=["seg_00000.m4s"])]
) -> Response:
    """A file that the playlist names; it never changes."""
    path = context.service.files.segment(job, name)
    return FileResponse(
        path,
        media_type=_TYPES[path.suffix],
        headers={"Cache-Control": "private, max-age=31536000, immutable"},
    )


async def _growing(context: Context, job: Job) -> AsyncIterator[bytes]:
    """Head and segments as they come, until the job has ended."""
    sent = 0
    with context.counted("streams"):
        while True:
            for path in (await run_in_threadpool(context.service.files.segments, job))[sent:]:
                sent += 1
                yield path.read_bytes()
            if job.ended:
                return
            try:
                job = await _changed(context, job)
            except NoSuchJob:
                return


async def _changed(context: Context, job: Job) -> Job:
    """The job after its next change, however long that takes."""
    while (now := await context.notices.change(job)).revision == job.revision:
        pass
    return now
