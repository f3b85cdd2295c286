"""Delivery of a video: its file (also while it grows), stills, HLS and events."""

from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import APIRouter, Response
from fastapi import Path as PathField
from fastapi.responses import FileResponse, StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from ..jobs.job import Job, NoSuchJob
from .context import REFUSALS, Context, In, Room, TheJob
from .schemas import Video

router = APIRouter(prefix="/v1/videos/{video_id}", tags=["watching"], responses=REFUSALS)
FIRST_FRAMES_SECONDS = 8.0  # that a playlist waits for frames
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
        206: {"content": {"video/mp4": _BINARY}, "description": "The requested range."},
    },
)
async def content(
    context: In, job: TheJob, variant: Literal["video", "thumbnail", "spritesheet"] = "video"
) -> Response:
    """Return the video, its first frame (WebP), or a contact sheet (JPEG).

    While the video is being made, the response grows: first the chunks so far, then every new one until the
    end, as a fragmented MP4. A finished video is a plain MP4 that supports ranges.
    """
    files = context.service.files
    if variant == "thumbnail":
        return FileResponse(await context.drawn(files.thumbnail, job), media_type="image/webp")
    if variant == "spritesheet":
        return FileResponse(await context.drawn(files.spritesheet, job), media_type="image/jpeg")
    segments = await run_in_threadpool(files.segments, job)
    if job.ended and (files.finished(job.id).is_file() or not segments):
        return FileResponse(files.video(job), media_type="video/mp4", filename=f"{job.id}.mp4")
    if not all(path.is_file() for path in segments):  # before the response has begun
        raise FileNotFoundError(f"{job.id}: a segment is missing")
    context.check_room("streams")
    return StreamingResponse(_growing(context, job), media_type="video/mp4")


@router.get("/events", summary="Progress as server-sent events", response_class=EventSourceResponse)
async def events(context: In, room: Room, job: TheJob) -> AsyncIterator[ServerSentEvent]:
    """Send an event `video` with the whole object now and after every change, then `done`."""
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
            "description": "The playlist so far.",
        }
    },
)
async def playlist(context: In, job: TheJob) -> Response:
    """Return the playlist so far; reload it until the video has ended.

    Waits some seconds for the first frames.
    """
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
    """Return a segment that the playlist names; it never changes."""
    path = context.service.files.segment(job, name)
    headers = {"Cache-Control": "private, max-age=31536000, immutable"}
    return FileResponse(path, media_type=_TYPES[path.suffix], headers=headers)


async def _growing(context: Context, job: Job) -> AsyncIterator[bytes]:
    """Yield the init segment and media segments as they come, until the job has ended."""
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
    """Wait for the job's next change, however long it takes; return it."""
    while (now := await context.notices.change(job)).revision == job.revision:
        pass
    return now
