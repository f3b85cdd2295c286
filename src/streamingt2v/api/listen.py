"""The application on a port, until the process is told to end."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

import uvicorn
from starlette.types import ASGIApp

from ..errors import RequestError

END_SECONDS = 3  # that open connections get when the server ends
_BACKLOG = 512
_LARGEST_MESSAGE = 1 << 20  # of a WebSocket, from a client


def serve_until_told(app: ASGIApp, host: str, port: int, note: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM. RequestError if the port cannot be had. note: called with where the server is, once it is there."""
    listener = _listening(host, port)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        ws_max_size=_LARGEST_MESSAGE,
        timeout_graceful_shutdown=END_SECONDS,
        lifespan="on",
    )
    note(f"listening on {address(host, listener.getsockname()[1])}")
    with listener, suppress(KeyboardInterrupt):  # the usual way for it to end; uvicorn has closed what was open
        uvicorn.Server(config).run(sockets=[listener])


def free_port(host: str, port: int) -> int:
    """The port, or a free one for 0; for somebody who opens it himself. RequestError if it cannot be had."""
    with _listening(host, port) as listener:
        return listener.getsockname()[1]


def wait_until_told() -> None:
    """Wait for SIGINT or SIGTERM."""
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told.set())
    with suppress(KeyboardInterrupt):
        told.wait()


def address(host: str, port: int) -> str:
    """As it is typed into a browser."""
    return f"http://[{host.strip('[]')}]:{port}" if ":" in host else f"http://{host}:{port}"


def _listening(host: str, port: int) -> socket.socket:
    try:
        # TCP by its number: only then does asyncio send what is small at once, and not 40 ms later
        listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host.strip("[]"), port))
        listener.listen(_BACKLOG)
        return listener
    except (OSError, OverflowError) as error:
        raise RequestError("port", port, f"cannot be listened on at {host}: {error}; choose another") from error
