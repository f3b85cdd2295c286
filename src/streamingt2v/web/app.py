"""The demo as one application: the HTTP API, what the page asks besides, the page itself, and the door in front of all."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import gradio as gr
from fastapi.responses import RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.types import ASGIApp

from ..api.app import create_app
from ..jobs.service import JobService
from .door import PAGE, Door
from .page import build_page, make_theme
from .routes import router

STATIC = Path(str(files("streamingt2v.web") / "static"))


def create_demo(service: JobService, token: str | None = None, allowed_hosts: frozenset[str] = frozenset()) -> ASGIApp:
    """The application; the service is entered and left by the caller. token, allowed_hosts: as `server.app.create_app` has them."""
    app = create_app(service, token, allowed_hosts)
    app.include_router(router)
    app.mount("/page/static", StaticFiles(directory=STATIC), name="page-static")
    app.add_api_route("/", lambda: RedirectResponse(f"{PAGE}/"), include_in_schema=False, response_class=RedirectResponse)
    app = gr.mount_gradio_app(
        app,
        build_page(service),
        path=PAGE,
        theme=make_theme(),
        css_paths=STATIC / "demo.css",
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        max_file_size=service.limits.upload_bytes,
    )
    return Door(app, token)
