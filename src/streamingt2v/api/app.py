"""The HTTP API as a FastAPI application on a running job service."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Response
from fastapi import Request as HttpRequest
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from .. import __version__
from ..jobs.notices import Notices
from ..jobs.service import JobService
from . import delivery, realtime, videos
from .context import Context, In
from .doors import BodyLimit, Guard, Heads, Outside, problem
from .metrics import Metrics
from .refusals import KINDS, Refusals
from .schemas import ErrorBody, Model, ModelList, NewPrompt, Remix, State, VideoCreate, VideoExtension
from .uploads import Uploads

STATIC = Path(str(files("streamingt2v.api") / "static"))
router = APIRouter(tags=["server"])
_POLICY = (
    "default-src 'self'; media-src 'self' blob:; frame-ancestors 'self'; base-uri 'none'; form-action 'self'"
)


def create_app(
    service: JobService, token: str | None = None, allowed_hosts: frozenset[str] = frozenset()
) -> FastAPI:
    """Return the application; the caller enters and leaves the service.

    token: required from clients; None admits only requests that address this machine by a loopback name, so
    listen on loopback alone. allowed_hosts: hosts whose https image URLs may be fetched for clients.
    """
    metrics, notices = Metrics(service), Notices(service.store, service.ending)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await notices.start()
        yield
        await notices.stop()

    app = FastAPI(
        title="StreamingT2V",
        version=__version__,
        summary="Long videos, watched while they are made.",
        lifespan=lifespan,
        redoc_url=None,
        docs_url=None,  # its page loads external scripts
        separate_input_output_schemas=False,
    )
    app.state.context = Context(
        service, notices, Uploads(service, allowed_hosts), metrics, Refusals(service.settings)
    )
    for part in (router, videos.router, delivery.router, realtime.router):
        app.include_router(part)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    for kind in (*KINDS, HTTPException, ClientDisconnect):
        app.add_exception_handler(kind, _refuse)
    app.add_middleware(BodyLimit, service.limits.upload_bytes)
    app.add_middleware(Guard, token)
    app.add_middleware(Outside, metrics.answered)
    app.add_middleware(Heads)
    _describe(app, token)
    return app


@router.get("/health", summary="Is it alive?")
async def health() -> State:
    """Answer if the server is alive."""
    return State(status="ok", version=__version__)


@router.get(
    "/ready",
    summary="Can it work?",
    responses={503: {"model": State, "description": "Not yet: a model is being loaded."}},
)
async def ready(response: Response, context: In) -> State:
    """Return whether every worker has loaded its model."""
    is_ready = context.service.supervisor.ready
    response.status_code = 200 if is_ready else 503
    return State(status="ok" if is_ready else "starting", version=__version__)


@router.get(
    "/metrics",
    summary="Figures for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}},
)
async def metrics(context: In) -> Response:
    """Return counts of jobs, frames, workers and responses."""
    return Response(context.metrics.text(), media_type="text/plain; version=0.0.4")


@router.get("/v1/models", summary="List models")
async def models(context: In) -> ModelList:
    """Return the models of this server."""
    return ModelList(data=[Model.of(name, config) for name, config in context.service.configs.items()])


@router.get(
    "/watch/{video_id}",
    summary="A page that plays a video while it is made",
    response_class=FileResponse,
    include_in_schema=False,
)
async def watch(video_id: str) -> Response:
    """Return the same page for every id; it loads its data from the API."""
    return FileResponse(
        STATIC / "watch.html", media_type="text/html", headers={"Content-Security-Policy": _POLICY}
    )


async def _refuse(http: HttpRequest, error: Exception) -> Response:
    """Return any error in the same form, without details of this machine."""
    if isinstance(error, HTTPException):
        if error.status_code == 405:  # list the methods of all routes at the path
            error.headers = {"Allow": ", ".join(sorted(_methods(http)))}
        return problem(error.status_code, str(error.detail), "http_error", None, dict(error.headers or {}))
    if isinstance(error, ClientDisconnect):
        return problem(400, "the connection ended before the body did", "invalid_request")
    context: Context = http.app.state.context
    said = context.refusals.of(error)
    return problem(said.status, said.message, said.code, said.param, dict(said.headers))


def _methods(http: HttpRequest) -> set[str]:
    """Return the methods allowed at a request's path."""
    document = http.app.openapi()["paths"]
    fitting = (path for path in document if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", path), http.url.path))
    methods = {method.upper() for path in fitting for method in document[path]}
    return methods | ({"HEAD"} if "GET" in methods else set())


def _describe(app: FastAPI, token: str | None) -> None:
    """Add to the OpenAPI document the bodies that are parsed by hand, and the token."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = plain()
            parts = document["components"]["schemas"]
            kinds: tuple[type[BaseModel], ...] = (VideoCreate, VideoExtension, Remix, NewPrompt, ErrorBody)
            for kind in kinds:
                schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
                parts.update(schema.pop("$defs", {}))
                parts[kind.__name__] = schema
            if token is not None:
                document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
                document["security"] = [{"token": []}]
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]
