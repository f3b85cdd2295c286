"""Who comes in, and with how much: the layers of ASGI around the application.

Without a token the server listens on this machine alone, and still a page from elsewhere in somebody's browser could call it; so the names
it is called by are checked, and that a page which calls it is its own.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .schemas import ErrorBody, Problem

OPEN_PATHS = ("/health", "/ready", "/static/", "/watch/")  # nothing of a job is behind these
_LOCAL = {"localhost", "127.0.0.1", "::1"}
_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
}
Answered = Callable[[str, str, int, float], None]
"""Method, path of the route, status, seconds."""


def problem(status: int, message: str, code: str, param: str | None = None, headers: dict[str, str] | None = None) -> JSONResponse:
    """An answer that says what is wrong."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    body = ErrorBody(error=Problem(message=message, code=code, param=param, type=kind))
    return JSONResponse(body.model_dump(), status, headers=headers)


class Guard:
    """Lets in whoever may. token: they must have, as `Authorization: Bearer`; None: they must be on this machine."""

    def __init__(self, app: ASGIApp, token: str | None):
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection."""
        refused = self._refused(scope) if scope["type"] in ("http", "websocket") else None
        if refused is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await refused(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": "not allowed"})

    def _refused(self, scope: Scope) -> JSONResponse | None:
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "")
        if self._token is None and _split(f"//{host}")[0] not in _LOCAL:
            return problem(403, f"this server is not called {host[:100]!r}; call it localhost, or start it with a token", "forbidden")
        origin = headers.get(b"origin")
        if origin is not None and self._token is None and _split(origin)[1] != host:
            return problem(403, "a page from elsewhere may not call this server", "forbidden")
        if self._token is None or scope["path"].startswith(OPEN_PATHS):
            return None
        given = headers.get(b"authorization", "")
        if hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode()):
            return None
        return problem(
            401, "give the server's token as 'Authorization: Bearer TOKEN'", "unauthorized", None, {"WWW-Authenticate": "Bearer"}
        )


class BodyLimit:
    """Refuses bodies of more than so many bytes, as soon as that is known."""

    def __init__(self, app: ASGIApp, most: int):
        self._app, self._most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        said = dict(scope["headers"]).get(b"content-length", b"0")
        if not said.isdigit() or int(said) > self._most:
            await self._too_large()(scope, receive, send)
            return
        count = 0

        async def counted() -> Message:
            nonlocal count
            message = await receive()
            count += len(message.get("body", b""))
            if count > self._most:
                raise HTTPException(413, f"the body has more than {self._most} bytes")
            return message

        await self._app(scope, counted, send)

    def _too_large(self) -> JSONResponse:
        return problem(413, f"the body has more than {self._most} bytes", "too_large", None, {"Connection": "close"})


class Outside:
    """What every answer gets: headers for browsers, and a place in the metrics."""

    def __init__(self, app: ASGIApp, answered: Answered):
        self._app, self._answered = app, answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *((n, v) for n, v in _HEADERS.items() if n not in given)]
                route = getattr(scope.get("route"), "path", "other")
                self._answered(scope["method"], route, message["status"], time.monotonic() - began)
            await send(message)

        await self._app(scope, receive, with_headers)


def _split(url: str) -> tuple[str | None, str | None]:
    """Host, and host with port, of an address; None twice if it is none."""
    try:
        parts = urlsplit(url)
        return parts.hostname, parts.netloc
    except ValueError:
        return None, None
