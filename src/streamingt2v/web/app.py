"""The demo as one application: the HTTP API, the page, what the page asks besides, and the door in front of all.

The page is static files that talk to the HTTP API: what it sends goes through the API's own checks, and no address and no path is taken
from a client anywhere.
"""

from __future__ import annotations

from fastapi.staticfiles import StaticFiles
from starlette.types import ASGIApp

from ..api.app import create_app
from ..jobs.service import JobService
from . import film, routes
from .door import Door


def create_demo(
    service: JobService, token: str | None = None, allowed_hosts: frozenset[str] = frozenset()
) -> ASGIApp:
    """The application; the service is entered and left by the caller. token, allowed_hosts: as `api.app.create_app` has them."""
    app = create_app(service, token, allowed_hosts)
    app.include_router(routes.router)
    app.include_router(film.router)
    app.mount("/page/static", StaticFiles(directory=routes.STATIC), name="page-static")
    return Door(app, token)
