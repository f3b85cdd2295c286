"""The page, and what it asks the server besides the API. Nothing here takes a path or an address from a client."""

from __future__ import annotations

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
MOST_SECONDS = 600
_one_at_a_time = threading.Lock()


@router.get("/")
async def page() -> Response:
    """The same page for every video; which one it shows stands in the address."""
    return FileResponse(STATIC / "page.html", media_type="text/html", headers={"Cache-Control": "no-cache"})


@router.get("/page/settings.json")
async def settings(context: In) -> dict[str, Any]:
    """What the form is drawn from."""
    return page_settings(context.service)


@router.get("/page/words.json")
async def words(context: In, model: str, prompt: str) -> dict[str, Any]:
    """How a model reads a prompt, see `words.read_as`."""
    service = context.service
    if model not in service.configs or len(prompt) > service.limits.prompt:
        raise RequestError("prompt", prompt[:20], "is too long, or its model is not on this server")
    return await run_in_threadpool(read_as, service.settings.names[model], prompt) or {}


@router.post("/page/look")
async def look(http: HttpRequest, context: In) -> dict[str, Any]:
    """What a file is that somebody would start from, and the settings in it. It is read as every upload is, and not kept."""
    async with context.uploads.body(http, "file") as body:
        upload = body.files.get("file")
        if upload is None:
            raise RequestError("file", None, "send a picture or a video")
        return await run_in_threadpool(_looked_at, context.service, upload)


@router.get("/page/videos/{video_id}/settings.json")
async def settings_of_job(job: TheJob) -> dict[str, Any]:
    """The fields of the form that gave this job, and what it starts from."""
    start = next(iter(job.request.files()), None)
    return settings_of(job.request, job.model) | {"start": start, "source": job.source}


@router.get("/page/videos/{video_id}/image")
async def image(context: In, job: TheJob) -> Response:
    """The picture that the job starts from."""
    if job.request.image is None:
        raise NotReady(f"{job.id} starts from no picture")
    return FileResponse(job.request.image, headers={"Cache-Control": "private, max-age=3600"})


@router.get("/page/videos/{video_id}/closer.json")
async def numbers(context: In, job: TheJob) -> Response:
    """What `closer.look_closer` gives. It is made when it is first asked for."""
    seen, _ = await context.drawn(partial(_closer, context.service), job)
    return FileResponse(seen, media_type="application/json")


@router.get("/page/videos/{video_id}/slice.png")
async def slice_(context: In, job: TheJob) -> Response:
    """The middle row of every frame as a column: time goes to the right."""
    _, picture = await context.drawn(partial(_closer, context.service), job)
    return FileResponse(
        picture, media_type="image/png", filename=f"{job.id}-slice.png", content_disposition_type="inline"
    )


def _looked_at(service: JobService, upload: Upload) -> dict[str, Any]:
    found = upload.found
    if found.kind == "image":
        return {"kind": "image", "settings": None}
    info = probe_video(upload.path)
    sound = False
    if not is_moving_image(upload.path):
        with open_video(upload.path) as (container, _):
            sound = bool(container.streams.audio)
    rate = None if info.fps is None else rate_as_number(info.fps)
    said = {
        "kind": "video",
        "width": info.width,
        "height": info.height,
        "fps": rate,
        "frames": found.frames,
        "sound": sound,
    }
    return said | {"settings": settings_of_file(read_metadata(upload.path), service.configs)}


def _closer(service: JobService, job: Job) -> tuple[Path, Path]:
    """The two files, made if they are missing. NotReady if the job has no video (yet), RunError if looking at it failed."""
    video, folder = service.files.video(job), service.files.of(job.id)
    seen, picture = folder / "closer.json", folder / "slice.png"
    with _one_at_a_time:
        if not seen.is_file():
            command = [sys.executable, "-m", "streamingt2v.web.closer", str(video), str(seen), str(picture)]
            done = subprocess.run(command, capture_output=True, timeout=MOST_SECONDS, check=False)
            if done.returncode:
                raise RunError(f"{job.id} could not be measured")
    return seen, picture
