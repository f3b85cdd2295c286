"""Serve the application on a port until the process is told to end."""

import asyncio
import logging
import signal
import socket
import threading
from contextlib import suppress
from typing import Self

import uvicorn
from starlette.types import ASGIApp

from ..errors import RequestError
from ..jobs.notices import Ending
from .connections import Connection

END_SECONDS = 3  # for open connections at shutdown
_BACKLOG = 512
_LARGEST_MESSAGE = 1 << 20  # bytes, from a WebSocket client


class Listener:
    """A port that is bound before a model is loaded. Raises RequestError if it is not available."""

    def __init__(self, host: str, port: int):
        self._socket = _listening(host, port)
        self.address = address(host, self._socket.getsockname()[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()

    def serve_until_told(self, app: ASGIApp, ending: threading.Event) -> None:
        """Serve until SIGINT or SIGTERM, then set `ending` so that streams finish."""
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
            with suppress(KeyboardInterrupt):  # the usual end; uvicorn has closed its connections
                _Server(config, ending).run(sockets=[self._socket])
        finally:
            log.removeFilter(_is_news)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ending: threading.Event):
        super().__init__(config)
        self._ending = ending

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let streams end first: each would delay the shutdown."""
        self._ending.set()
        await super().shutdown(sockets)


def _is_news(record: logging.LogRecord) -> bool:
    """Return whether a record is more than a connection that was open at shutdown."""
    error = record.exc_info[1] if record.exc_info else None
    return not _is_end(error) and "timeout graceful shutdown exceeded" not in record.getMessage()


def _is_end(error: BaseException | None) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_end, error.exceptions))
    return isinstance(error, Ending | asyncio.CancelledError)


def free_port(host: str, port: int) -> int:
    """Return the port, or a free one for 0, for a caller that binds it.

    Raises RequestError if it is not available.
    """
    with _listening(host, port) as listener:
        return listener.getsockname()[1]


def wait_until_told() -> None:
    """Wait for SIGINT or SIGTERM."""
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told.set())
    with suppress(KeyboardInterrupt):
        told.wait()


def address(host: str, port: int) -> str:
    """Return the URL of a host and port."""
    return f"http://[{host.strip('[]')}]:{port}" if ":" in host else f"http://{host}:{port}"


def _listening(host: str, port: int) -> socket.socket:
    try:
        # name the protocol: asyncio sets TCP_NODELAY only then, else small messages wait 40 ms
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
