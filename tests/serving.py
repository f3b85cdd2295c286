"""Serve the HTTP API on a real port for the time of a `with`."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from urllib.parse import urlsplit

import uvicorn
from PIL import Image
from starlette.types import ASGIApp

from streamingt2v.api.app import create_app
from streamingt2v.api.connections import Connection
from streamingt2v.jobs.service import JobService


def served(service: JobService, token: str | None = None, **options) -> AbstractContextManager[str]:
    """Serve the API of a service; yield its address."""
    return listening(create_app(service, token, **options))


@contextmanager
def listening(app: ASGIApp) -> Iterator[str]:
    """Serve an application; yield its address."""
    config = uvicorn.Config(app, port=0, http=Connection, log_level="warning", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def picture(kind: str = "PNG", size: tuple[int, int] = (40, 60)) -> bytes:
    """Return a red image as a file of this kind."""
    buffer = io.BytesIO()
    Image.new("RGB", size, "red").save(buffer, kind)
    return buffer.getvalue()


def dialled(url: str) -> socket.socket:
    """Connect to the server at a URL."""
    return socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=20)


def raw(url: str, head: str, body: bytes = b"") -> bytes:
    """Send a handwritten request; return the status line, empty if the connection just ends."""
    with closing(dialled(url)) as plain:
        plain.sendall(
            head.replace("HOST", urlsplit(url).netloc).replace("\n", "\r\n").encode("latin-1")
            + b"\r\n\r\n"
            + body
        )
        return plain.recv(4096).partition(b"\r\n")[0]
