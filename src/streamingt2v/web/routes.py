"""The page and its own routes beside the API. No route takes a path or address from a client."""

import subprocess
import sys
import threading
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Response
from fastapi import Request as HttpRequest
from fastapi.responses import FileResponse
from starlette.concurrency import run_in_threadpool

from ..api.context import In, TheJob
from ..api.uploads import Upload
from ..errors import RequestError, RunError
from ..jobs.files import NotReady
from ..jobs.job import Job
from ..jobs.service import JobService
from ..video.container import is_moving_image, open_video
from ..video.rates import rate_as_number
from ..video.reader import probe_video
from ..video.writer import read_metadata
from .settings import page_settings, settings_of, settings_of_file
from .words import read_as

STATIC = Path(str(files("streamingt2v.web") / "static"))
router = APIRouter(include_in_schema=False)
MOST_SECONDS = 600  # to measure a video
_one_at_a_time = threading.Lock()


@router.get("/")
async def page() -> Response:
    """Send the page; its query names the video to show."""
    return FileResponse(STATIC / "page.html", media_type="text/html", headers={"Cache-Control": "no-cache"})


@router.get("/page/settings.json")
async def settings(context: In) -> dict[str, Any]:
    """Return the models, limits and examples of the form."""
    return page_settings(context.service)


@router.get("/page/words.json")
async def words(context: In, model: str, prompt: str) -> dict[str, Any]:
    """Return how a model reads a prompt, see `words.read_as`."""
    service = context.service
    if model not in service.configs or len(prompt) > service.limits.prompt:
        raise RequestError("prompt", prompt[:20], "is too long, or its model is not on this server")
    return await run_in_threadpool(read_as, service.settings.names[model], prompt) or {}


@router.post("/page/look")
async def look(http: HttpRequest, context: In) -> dict[str, Any]:
    """Inspect an uploaded file and return its properties and embedded settings; do not keep it."""
    async with context.uploads.body(http, "file") as body:
        upload = body.files.get("file")
        if upload is None:
            raise RequestError("file", None, "send an image or a video")
        return await run_in_threadpool(_looked_at, context.service, upload)


@router.get("/page/videos/{video_id}/settings.json")
async def settings_of_job(job: TheJob) -> dict[str, Any]:
    """Return the form fields of a job and the kind of file it starts from."""
    start = next(iter(job.request.files()), None)
    return settings_of(job.request, job.model) | {"start": start, "source": job.source}


@router.get("/page/videos/{video_id}/image")
async def image(context: In, job: TheJob) -> Response:
    """Send the image that the job starts from."""
    if job.request.image is None:
        raise NotReady(f"{job.id} starts from no image")
    return FileResponse(job.request.image, headers={"Cache-Control": "private, max-age=3600"})


@router.get("/page/videos/{video_id}/closer.json")
async def numbers(context: In, job: TheJob) -> Response:
    """Send the numbers of `closer.look_closer`; measure on first request."""
    found, _ = await context.drawn(partial(_closer, context.service), job)
    return FileResponse(found, media_type="application/json")


@router.get("/page/videos/{video_id}/slice.png")
async def slice_(context: In, job: TheJob) -> Response:
    """Send the slice through time: the middle row of every frame as a column."""
    _, found = await context.drawn(partial(_closer, context.service), job)
    name = f"{job.id}-slice.png"
    return FileResponse(found, media_type="image/png", filename=name, content_disposition_type="inline")


def _looked_at(service: JobService, upload: Upload) -> dict[str, Any]:
    found = upload.found
    if found.kind == "image":
        return {"kind": "image", "settings": None}
    info = probe_video(upload.path)
    sound = False
    if not is_moving_image(upload.path):
        with open_video(upload.path) as (container, _):
            sound = bool(container.streams.audio)
    return {
        "kind": "video",
        "width": info.width,
        "height": info.height,
        "fps": None if found.rate is None else rate_as_number(found.rate),
        "frames": found.frames,
        "sound": sound,
        "settings": settings_of_file(read_metadata(upload.path), service.configs),
    }


def _closer(service: JobService, job: Job) -> tuple[Path, Path]:
    """Return numbers and slice, made if missing; NotReady without a video, RunError if measuring failed."""
    video, folder = service.files.video(job), service.files.of(job.id)
    numbers, slice_ = folder / "closer.json", folder / "slice.png"
    with _one_at_a_time:
        if not numbers.is_file():
            command = [sys.executable, "-m", "streamingt2v.web.closer", str(video), str(numbers), str(slice_)]
            done = subprocess.run(command, capture_output=True, timeout=MOST_SECONDS, check=False)
            if done.returncode:
                raise RunError(f"{job.id} could not be measured")
    return numbers, slice_
