"""What the page asks the server besides the API: a closer look at a video that has ended. It is made when it is first asked for."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse
from starlette.concurrency import run_in_threadpool

from ..api.context import In, TheJob
from ..errors import RunError
from ..jobs.job import Job
from ..jobs.service import JobService

router = APIRouter(prefix="/page/videos/{video_id}", include_in_schema=False)
MOST_SECONDS = 600
_one_at_a_time = threading.Lock()


@router.get("/closer.json")
async def numbers(context: In, job: TheJob) -> Response:
    """What `look` gives."""
    look, _ = await run_in_threadpool(_looked, context.service, job)
    return FileResponse(look, media_type="application/json")


@router.get("/slice.png")
async def slice_(context: In, job: TheJob) -> Response:
    """The middle row of every frame as a column: time goes to the right."""
    _, picture = await run_in_threadpool(_looked, context.service, job)
    return FileResponse(picture, media_type="image/png", filename=f"{job.id}-slice.png", content_disposition_type="inline")


def _looked(service: JobService, job: Job) -> tuple[Path, Path]:
    """The two files, made if they are missing. NotReady if the job has no video (yet), RunError if looking at it failed."""
    video, folder = service.files.video(job), service.files.of(job.id)
    look, picture = folder / "closer.json", folder / "slice.png"
    with _one_at_a_time:
        if not look.is_file():
            command = [sys.executable, "-m", "streamingt2v.web.closer", str(video), str(look), str(picture)]
            done = subprocess.run(command, capture_output=True, timeout=MOST_SECONDS, check=False)
            if done.returncode:
                raise RunError(f"{job.id} could not be measured")
    return look, picture
