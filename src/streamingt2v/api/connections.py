"""Limit slow clients: a head must arrive in time, and connections stay below the descriptor limit."""

import asyncio
import resource
import time

from uvicorn.protocols.http.auto import AutoHTTPProtocol

HEAD_SECONDS = 15.0  # for the head of a request, since the connection or the last response
HEAD_BYTES = 2**16
_DESCRIPTORS = 8192  # the most to ask for
_OWN = 96  # descriptors for the server's files, workers and database
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
)
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


def most_connections() -> int:
    """Return how many connections fit into the process's descriptors, after raising the soft limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    available = _DESCRIPTORS if soft == resource.RLIM_INFINITY else soft
    return max(8, (available - _OWN) * 2 // 3)  # a response may have a file open too


class Connection(AutoHTTPProtocol):  # type: ignore[valid-type, misc]
    """uvicorn's HTTP protocol with a timeout for heads. Pass it to `uvicorn.Config` as `http`."""

    most: int | None = None  # of the process, set by the first connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the timer; if there are too many connections, close an idle one."""
        super().connection_made(transport)
        self._head_bytes, self._timer = 0, None
        self._await_head()
        Connection.most = Connection.most or most_connections()
        if len(self.connections) > Connection.most:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Stop the timer when a head is complete; close the connection if the head is too large."""
        super().data_received(data)
        if self.has_request or self.transport.get_protocol() is not self:  # now a WebSocket
            self._stop_timer()
            self._head_bytes = 0
            return
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
            self._end(_TOO_LARGE)

    def on_response_complete(self) -> None:
        """Start the timer for the next head."""
        super().on_response_complete()
        if not self.has_request:
            self._await_head()

    @property
    def has_request(self) -> bool:
        """Return whether a request awaits its response."""
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
        """Close the connection that has been idle longest; this one if all others have requests."""
        others = (each for each in self.connections if each is not self and isinstance(each, Connection))
        idle = [other for other in others if not other.has_request]
        if idle:
            min(idle, key=lambda other: other._since).transport.abort()
        else:
            self._end(_FULL)

    def _end(self, answer: bytes) -> None:
        self.transport.write(answer)
        self.transport.close()
