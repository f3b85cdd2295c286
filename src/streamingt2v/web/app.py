"""The demo as one ASGI application: HTTP API, page, page routes, and cookie access in front.

The page is static files that use the HTTP API, so the API checks everything it sends.
"""

from fastapi.staticfiles import StaticFiles
from starlette.types import ASGIApp

from ..api.app import create_app
from ..jobs.service import JobService
from . import film, routes
from .door import Door


def create_demo(service: JobService, token: str | None = None) -> ASGIApp:
    """Return the application; see `api.app.create_app`. The caller opens and closes the service."""
    app = create_app(service, token)
    app.include_router(routes.router)
    app.include_router(film.router)
    app.mount("/page/static", StaticFiles(directory=routes.STATIC), name="page-static")
    return Door(app, token)
