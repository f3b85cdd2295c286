"""`demo`: the web page, with the HTTP API beside it on the same port."""

from __future__ import annotations

import os
from typing import Annotated

from typer import Option

from .options import takes_options
from .serve import TOKEN, ServiceOptions, check_extra, checked_token, serve_jobs, settings_of


@takes_options
def demo(
    *,
    host: Annotated[
        str, Option(help="Address to listen on; one that others reach needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, Option(help="Port to listen on; 0: a free one.")] = 7860,
    token: Annotated[
        str | None,
        Option(help=f"What visitors must give once; better given as the environment variable {TOKEN}."),
    ] = None,
    service: ServiceOptions,
) -> None:
    """Open the web demo: type a prompt, watch the video while it is made.

    The HTTP API of `serve` is there too, and jobs outlive this process in the same way.
    """
    check_extra("demo", "web", "fastapi", "uvicorn", "prometheus_client", "python_multipart", "websockets")
    token = checked_token(host, token or os.environ.get(TOKEN))
    settings = settings_of(service)
    from ..web.app import create_demo

    serve_jobs(settings, lambda jobs: create_demo(jobs, token), host, port)
