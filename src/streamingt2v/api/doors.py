"""ASGI middleware: access, origins, body limits and headers.

Without a token the server listens on loopback alone, but a foreign page in a local browser could still call
it. So the Host header must be a loopback name, and the Origin must match it.
"""

import asyncio
import hmac
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .schemas import ErrorBody, Problem

PLAIN_BYTES = 16 * 2**20  # of a body that is not a form
MOST_VALUES = 100_000  # parsed in tens of milliseconds
BODY_SECONDS = 30.0  # for a body, plus its bytes / SLOWEST_BYTES
SLOWEST_BYTES = 16 * 2**10  # a second
_SIGNS = (b",", b":", b"[", b"{", b"&", b";")  # every value or name in JSON and forms needs one
OPEN_PATHS = ("/health", "/ready", "/static/", "/watch/")  # these reveal nothing about jobs
_LOCAL = {"localhost", "127.0.0.1", "::1"}
_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
}
Answered = Callable[[str, str, int, float], None]
"""Method, path of the route, status, seconds to the response."""


def problem(
    status: int, message: str, code: str, param: str | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    """Return an error response."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    message, param = plain(message, 2000) or "", plain(param, 200)
    body = ErrorBody(error=Problem(message=message, code=code, param=param, type=kind))
    return JSONResponse(body.model_dump(), status, headers=headers)


class Guard:
    """Admit requests with the token as `Authorization: Bearer`; without a token, those from this machine."""

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
            fix = f"this server is not called {host[:100]!r}; call it localhost, or start it with a token"
            return problem(403, fix, "forbidden")
        origin = headers.get(b"origin")
        if origin is not None and self._token is None and _split(origin)[1] != host:
            return problem(403, "a page from elsewhere may not call this server", "forbidden")
        if self._token is None or scope["path"].startswith(OPEN_PATHS):
            return None
        given = headers.get(b"authorization", "")
        if hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode()):
            return None
        fix = "give the server's token as 'Authorization: Bearer TOKEN'"
        return problem(401, fix, "unauthorized", headers={"WWW-Authenticate": "Bearer"})


class BodyLimit:
    """Refuse bodies with too many bytes or values, or too slow ones, before they are parsed.

    Files come in forms. Other bodies are limited to `PLAIN_BYTES` and `MOST_VALUES`.
    """

    def __init__(self, app: ASGIApp, most: int):
        self._app, self._most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        is_form = headers.get(b"content-type", b"").lower().lstrip().startswith(b"multipart/form-data")
        most = self._most if is_form else min(self._most, PLAIN_BYTES)
        said = headers.get(b"content-length", b"0")
        if not said.isdigit() or len(said) > 18 or int(said) > most:
            await problem(413, _too_many(most, is_form), "too_large", None, {"Connection": "close"})(
                scope, receive, send
            )
            return
        await self._app(scope, _Counted(receive, most, is_form), send)


class _Counted:
    """Count a body while it is received."""

    def __init__(self, receive: Receive, most: int, is_form: bool):
        self._receive, self._most, self._is_form = receive, most, is_form
        self._began = time.monotonic()
        self._bytes = self._values = 0
        self._ended = False

    async def __call__(self) -> Message:
        if self._ended:
            return await self._receive()
        left = self._began + BODY_SECONDS + self._bytes / SLOWEST_BYTES - time.monotonic()
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, left))
        except TimeoutError:
            raise HTTPException(408, "the body comes too slowly", {"Connection": "close"}) from None
        body = message.get("body", b"")
        self._ended = not message.get("more_body", False)
        self._bytes += len(body)
        if self._bytes > self._most:
            raise HTTPException(413, _too_many(self._most, self._is_form), {"Connection": "close"})
        if not self._is_form:
            self._values += sum(body.count(sign) for sign in _SIGNS)
            if self._values > MOST_VALUES:
                raise HTTPException(
                    413, f"the body has more than {MOST_VALUES} values", {"Connection": "close"}
                )
        return message


def _too_many(most: int, is_form: bool) -> str:
    return f"the body has more than {most} bytes" + (
        "" if is_form else "; send files in a form (multipart/form-data)"
    )


class Heads:
    """Answer `HEAD` like `GET`, without the body."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        sent = False

        async def head_alone(message: Message) -> None:
            nonlocal sent
            if message["type"] == "http.response.start":
                sent = True
                await send(message)
                await send({"type": "http.response.body", "body": b""})
            raise _HeadSent

        try:
            await self._app({**scope, "method": "GET"}, receive, head_alone)
        except Exception:
            if not sent:
                raise


class _HeadSent(Exception):
    """The head is sent; stop the application."""


class Outside:
    """Add security headers to every response and measure it."""

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
                missing = [(name, value) for name, value in _HEADERS.items() if name not in given]
                message["headers"] = [*message["headers"], *missing]
                route = getattr(scope.get("route"), "path", "other")
                self._answered(scope["method"], route, message["status"], time.monotonic() - began)
            await send(message)

        await self._app(scope, receive, with_headers)


def plain(text: str | None, most: int) -> str | None:
    """Return text from a client, shortened and safe to encode."""
    return None if text is None else text[:most].encode(errors="replace").decode()


def _split(url: str) -> tuple[str | None, str | None]:
    """Return the host, and the host with port, of an address; None twice if it is malformed."""
    try:
        parts = urlsplit(url)
        return parts.hostname, parts.netloc
    except ValueError:
        return None, None
