"""Connections of clients that dawdle: a head has to come within some seconds, and there are no more of them than there are descriptors."""

from __future__ import annotations

import asyncio
import resource
import time

from uvicorn.protocols.http.auto import AutoHTTPProtocol

HEAD_SECONDS = 15.0  # for the head of a request, from the connection or the answer before on
HEAD_BYTES = 2**16
_DESCRIPTORS = 8192  # more than is asked for here
_OWN = 96  # descriptors of the server's own files, its workers' and its database's
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
)
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


def most_connections() -> int:
    """Return how many connections the process has descriptors for, after raising its limit as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    available = _DESCRIPTORS if soft == resource.RLIM_INFINITY else soft
    return max(8, (available - _OWN) * 2 // 3)  # an answer may have a file open as well


class Connection(AutoHTTPProtocol):  # type: ignore[valid-type, misc]
    """uvicorn's, which by itself waits for a head without end. It is given to `uvicorn.Config` as `http`."""

    most: int | None = None  # of a process; asked for with the first connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        super().connection_made(transport)
        self._head_bytes, self._timer = 0, None
        self._await_head()
        Connection.most = Connection.most or most_connections()
        if len(self.connections) > Connection.most:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        super().data_received(data)
        if self.has_request or self.transport.get_protocol() is not self:  # which is now that of a WebSocket
            self._stop_timer()
            self._head_bytes = 0
            return
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
            self._end(_TOO_LARGE)

    def on_response_complete(self) -> None:
        """See uvicorn: an answer is sent."""
        super().on_response_complete()
        if not self.has_request:
            self._await_head()

    @property
    def has_request(self) -> bool:
        """Return whether a request has come that is not answered yet."""
        return self.cycle is not None and not self.cycle.response_complete

    def _await_head(self) -> None:
        self._stop_timer()
        self._since, self._head_bytes = time.monotonic(), 0
        self._timer = self.loop.call_later(HEAD_SECONDS, self._too_slow)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        if not self.has_request:
            self.transport.abort()

    def _make_room(self) -> None:
        """End the connection that has waited longest without a request; this one, where all others have one."""
        idle = [
            other
            for other in self.connections
            if other is not self and isinstance(other, Connection) and not other.has_request
        ]
        if idle:
            min(idle, key=lambda other: other._since).transport.abort()
        else:
            self._end(_FULL)

    def _end(self, answer: bytes) -> None:
        self.transport.write(answer)
        self.transport.close()
