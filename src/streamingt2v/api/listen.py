"""The application on a port, until the process is told to end."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
from contextlib import suppress

import uvicorn
from starlette.types import ASGIApp

from ..errors import RequestError
from ..jobs.notices import Ending
from .connections import Connection

END_SECONDS = 3  # that open connections get when the server ends
_BACKLOG = 512
_LARGEST_MESSAGE = 1 << 20  # of a WebSocket, from a client


class Listener:
    """A port that is taken, so that nobody waits for a model only to hear that it is not free. RequestError if it cannot be had."""

    def __init__(self, host: str, port: int):
        self._socket = _listening(host, port)
        self.address = address(host, self._socket.getsockname()[1])

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()

    def serve_until_told(self, app: ASGIApp, ending: threading.Event) -> None:
        """Serve until SIGINT or SIGTERM. ending: set then, so that whoever streams comes to an end."""
        config = uvicorn.Config(
            app,
            http=Connection,
            log_level="warning",
            access_log=False,
            server_header=False,
            ws_max_size=_LARGEST_MESSAGE,
            timeout_graceful_shutdown=END_SECONDS,
            lifespan="on",
        )
        log = logging.getLogger("uvicorn.error")
        log.addFilter(_is_news)
        try:
            with suppress(KeyboardInterrupt):  # the usual way for it to end; uvicorn has closed what was open
                _Server(config, ending).run(sockets=[self._socket])
        finally:
            log.removeFilter(_is_news)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ending: threading.Event):
        super().__init__(config)
        self._ending = ending

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell the streams first: each would hold the end up for as long as it may."""
        self._ending.set()
        await super().shutdown(sockets)


def _is_news(record: logging.LogRecord) -> bool:
    """Return whether it is not just a connection that was open when the server was told to end."""
    error = record.exc_info[1] if record.exc_info else None
    return not _is_end(error) and "timeout graceful shutdown exceeded" not in record.getMessage()


def _is_end(error: BaseException | None) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_end, error.exceptions))
    return isinstance(error, Ending | asyncio.CancelledError)


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
    """Return the host as typed into a browser."""
    return f"http://[{host.strip('[]')}]:{port}" if ":" in host else f"http://{host}:{port}"


def _listening(host: str, port: int) -> socket.socket:
    try:
        # TCP by its number: only then does asyncio send what is small at once, and not 40 ms later
        listener = socket.socket(
            socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP
        )
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host.strip("[]"), port))
        listener.listen(_BACKLOG)
        return listener
    except (OSError, OverflowError) as error:
        raise RequestError(
            "port", port, f"cannot be listened on at {host}: {error}; choose another"
        ) from error
