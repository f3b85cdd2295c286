"""`demo`: the web page and the HTTP API on one port."""

import os

from .options import takes_options
from .serve import (
    TOKEN,
    HostOption,
    PortOption,
    ServiceOptions,
    TokenOption,
    check_extra,
    checked_token,
    serve_jobs,
    settings_of,
)


@takes_options
def demo(
    *,
    host: HostOption = "127.0.0.1",
    port: PortOption = 7860,
    token: TokenOption = None,
    service: ServiceOptions,
) -> None:
    """Start the web page: type a prompt and watch the video while it is made.

    The HTTP API of `serve` is at the same address. Jobs continue after a restart.
    """
    check_extra("demo", "web", "fastapi", "uvicorn", "prometheus_client", "python_multipart", "websockets")
    token = checked_token(host, token or os.environ.get(TOKEN))
    settings = settings_of(service)
    from ..web.app import create_demo

    serve_jobs(settings, lambda jobs: create_demo(jobs, token), host, port)
