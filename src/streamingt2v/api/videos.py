"""`/v1/videos`: create, list, retrieve, extend, remix, refine, change, cancel and delete."""

from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from fastapi import Request as HttpRequest
from starlette.concurrency import run_in_threadpool

from ..config import Request
from ..errors import RequestError
from ..jobs.job import Job
from ..jobs.service import JobService
from . import schemas
from .context import REFUSALS, IdempotencyKey, In, TheJob
from .schemas import (
    NewPrompt,
    PromptChanged,
    Remix,
    Video,
    VideoCreate,
    VideoDeleted,
    VideoExtension,
    VideoList,
)
from .uploads import Body, Upload

router = APIRouter(prefix="/v1/videos", tags=["videos"], responses=REFUSALS)
POLL_MS = 500


def _body(kind: type[schemas.BaseModel], *files: str) -> dict[str, Any]:
    """Return the OpenAPI description of a body that is parsed by hand: JSON, or also a form with files."""
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    content: dict[str, Any] = {
        "application/json": {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}}
    }
    if files:
        fields = {name: _without_null(field) for name, field in schema["properties"].items()} | {
            name: {"type": "string", "format": "binary"} for name in files
        }
        form = {name: schema[name] for name in ("type", "required", "additionalProperties") if name in schema}
        content["multipart/form-data"] = {"schema": form | {"properties": fields}}
    return {"requestBody": {"required": True, "content": content}}


def _without_null(field: dict[str, Any]) -> dict[str, Any]:
    """Return a field as it is in a form, which has no null."""
    kinds = [kind for kind in field.get("anyOf", ()) if kind.get("type") != "null"]
    if len(kinds) != 1:
        return field
    return {name: value for name, value in field.items() if name not in ("anyOf", "default")} | kinds[0]


@router.post("", summary="Create a video", openapi_extra=_body(VideoCreate, "input_reference"))
async def create(
    http: HttpRequest, response: Response, context: In, idempotency_key: IdempotencyKey = None
) -> Video:
    """Queue a video.

    It starts from an image given as `input_reference`, or extends a video given as a file.
    """
    async with AsyncExitStack() as stack:
        body = await stack.enter_async_context(context.uploads.body(http, "input_reference"))
        asked = body.as_(VideoCreate)
        fetched = await stack.enter_async_context(context.uploads.image(asked.input_reference))
        start = body.files.get("input_reference") or fetched
        job = await run_in_threadpool(_create, context.service, asked, start, body, idempotency_key)
    return _shown(response, job)


@router.post("/extensions", summary="Extend a video", openapi_extra=_body(VideoExtension, "video"))
async def extend(
    http: HttpRequest, response: Response, context: In, idempotency_key: IdempotencyKey = None
) -> Video:
    """Queue a video that begins with all frames of another: a finished one by its id, or a file."""
    async with context.uploads.body(http, "video") as body:
        asked = body.as_(VideoExtension)
        job = await run_in_threadpool(_extend, context.service, asked, body, idempotency_key)
    return _shown(response, job)


@router.get("", summary="List videos")
async def list_videos(
    context: In,
    after: Annotated[
        str | None, Query(max_length=64, description="Id of the last video of the page before.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Annotated[Literal["asc", "desc"], Query(description="By time of creation.")] = "desc",
) -> VideoList:
    """Return videos, newest first."""
    jobs, more = context.service.list(limit, after, order == "desc")
    shown = [Video.of(job) for job in jobs]
    first, last = (shown[0].id, shown[-1].id) if shown else (None, None)
    return VideoList(data=shown, first_id=first, last_id=last, has_more=more)


@router.get("/{video_id}", summary="Retrieve a video")
async def retrieve(response: Response, job: TheJob) -> Video:
    """Return a video with its progress."""
    return _shown(response, job)


@router.delete("/{video_id}", summary="Delete a video")
async def delete(context: In, job: TheJob) -> VideoDeleted:
    """Stop a video and delete all of it."""
    await run_in_threadpool(context.service.delete, job.id)
    return VideoDeleted(id=job.id)


@router.post("/{video_id}/cancel", summary="Stop a video")
async def cancel(response: Response, context: In, job: TheJob) -> Video:
    """Stop within one denoising step and keep the frames so far. No effect on a video that has ended."""
    return _shown(response, await run_in_threadpool(context.service.cancel, job.id))


@router.post(
    "/{video_id}/remix",
    summary="Make a video again, with another prompt, seed or preset",
    openapi_extra=_body(Remix),
)
async def remix(
    http: HttpRequest, response: Response, context: In, job: TheJob, idempotency_key: IdempotencyKey = None
) -> Video:
    """Queue a copy of this video with the given changes."""
    async with context.uploads.body(http) as body:
        asked = body.as_(Remix)
    key = Body(asked.model_dump(exclude_none=True)).key(idempotency_key, f"remix {job.id}")
    changes = asked.model_dump()
    return _shown(
        response, await run_in_threadpool(lambda: context.service.remix(job.id, **changes, key=key))
    )


@router.post("/{video_id}/refine", summary="Refine a preview")
async def refine(
    response: Response, context: In, job: TheJob, idempotency_key: IdempotencyKey = None
) -> Video:
    """Queue this preview's lossless frames for stage 3."""
    key = Body({}).key(idempotency_key, f"refine {job.id}")
    return _shown(response, await run_in_threadpool(context.service.refine, job.id, key))


@router.post("/{video_id}/prompt", summary="Change the prompt on the way", openapi_extra=_body(NewPrompt))
async def change_prompt(http: HttpRequest, context: In, job: TheJob) -> PromptChanged:
    """Change the prompt from the next chunk on."""
    async with context.uploads.body(http) as body:
        asked = body.as_(NewPrompt)
    number = await run_in_threadpool(context.service.change_prompt, job.id, asked.prompt)
    return PromptChanged(id=job.id, number=number, prompt=asked.prompt)


def _create(
    service: JobService, asked: VideoCreate, start: Upload | None, body: Body, key: str | None
) -> Job:
    model = service.model(asked.model)
    image = str(start.path) if start and start.found.kind == "image" else None
    video = str(start.path) if start and start.found.kind == "video" else None
    request = asked.request(service.configs[model], image, video, start.found.rate if start else None)
    counted = (start.found.frames, start.found.rate) if start else None
    return service.submit(request, model, body.key(key, "create"), counted)


def _extend(service: JobService, asked: VideoExtension, body: Body, name: str | None) -> Job:
    key, upload = body.key(name, "extend"), body.files.get("video")
    if asked.video is not None and upload is None:
        if asked.model is not None:
            raise RequestError("model", asked.model, "the video's own model is used; leave it out")
        job = service.get(asked.video.id)
        return service.extend(job.id, asked.prompt, asked.frames(job.fps), asked.seed, key=key)
    if upload is None or asked.video is not None:
        raise RequestError("video", None, "give either a video's id or a file")
    if upload.found.kind != "video":
        raise RequestError(
            "video", upload.found.suffix, "is an image; send a video, or create one from the image"
        )
    model = service.model(asked.model)
    request = Request(
        asked.prompt, asked.frames(upload.found.rate or service.configs[model].fps), video=str(upload.path)
    )
    request = request if asked.seed is None else replace(request, seed=asked.seed)
    return service.submit(request, model, key, (upload.found.frames, upload.found.rate))


def _shown(response: Response, job: Job) -> Video:
    if not job.ended:
        response.headers["openai-poll-after-ms"] = str(POLL_MS)
    return Video.of(job)
