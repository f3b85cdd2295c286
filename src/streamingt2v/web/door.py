"""In front of the page and the API: browsers come in with a cookie, and their page loads nothing from elsewhere.

A browser cannot send a bearer token with every picture and video that a page shows. So whoever has the token gives it once, and then has
a cookie, which is made from the token but is not it; behind this door a request with that cookie carries the token.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from html import escape
from http.cookies import CookieError, SimpleCookie
from string import Template
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PAGE = "/"
ENTER = "/enter"
COOKIE = "streamingt2v"
MOST_BYTES = 8192  # of the form with the token
WRONG_SECONDS = 1.0  # that a wrong token costs
_STYLE = """:root { color-scheme: light dark }
body { font: 1rem/1.5 system-ui, sans-serif; display: grid; place-content: center; min-height: 90vh; margin: 0 1rem }
input, button { font: inherit; padding: .6rem .8rem; border-radius: .5rem; border: 1px solid #767676 }
form { display: flex; gap: .5rem; flex-wrap: wrap }"""
_POLICY = "; ".join(
    (
        "default-src 'self'",
        f"style-src 'self' 'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'",
        "img-src 'self' data: blob:",
        "media-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'none'",
        "frame-ancestors 'self'",
        "form-action 'self'",
    )
)
_HEADERS = [(b"content-security-policy", _POLICY.encode()), (b"referrer-policy", b"no-referrer")]
_ENTRANCE = Template(f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>StreamingT2V</title><style>{_STYLE}</style></head><body><main><h1>StreamingT2V</h1><p role="status">$text</p>
<form method="post"><input name="token" type="password" autocomplete="current-password" aria-label="Token" required autofocus>
<button>Enter</button></form></main></body></html>""")


class Door:
    """The layer of ASGI. token: what lets in; None: everybody who gets as far as this."""

    def __init__(self, app: ASGIApp, token: str | None):
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection."""
        if scope["type"] == "lifespan" or self._token is None:
            await self._pass(scope, receive, send)
        elif scope["path"] == ENTER and scope["type"] == "http":
            answer = await self._enter(Request(scope, receive), self._token)
            await answer(scope, receive, _with_policy(send))
        elif self._has_cookie(scope, self._token):
            await self._pass(_with_token(scope, self._token), receive, send)
        elif scope["type"] == "http" and scope["path"] == PAGE:
            await RedirectResponse(_with_query(ENTER, scope), 303)(scope, receive, send)
        else:
            await self._pass(scope, receive, send)  # with a bearer token, or to be refused

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_page = scope["type"] == "http" and scope["path"] == PAGE
        await self._app(scope, receive, _with_policy(send) if is_page else send)

    async def _enter(self, request: Request, token: str) -> Response:
        if request.method != "POST":
            return _entrance("This server needs a token.")
        if not hmac.compare_digest(await _given(request), token.encode()):
            await asyncio.sleep(WRONG_SECONDS)
            return _entrance("That is not it; try again.", 401)
        answer = RedirectResponse(_with_query(PAGE, request.scope), 303)
        secure = request.url.scheme == "https"
        # lax: a link to a video, from a chat or a mail, finds the cookie; nothing is changed by a GET
        answer.set_cookie(
            COOKIE, _pass_of(token), max_age=7 * 24 * 3600, httponly=True, samesite="lax", secure=secure
        )
        return answer

    def _has_cookie(self, scope: Scope, token: str) -> bool:
        """Return whether a page of this server, and not one from elsewhere, comes with the cookie."""
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        origin = headers.get(b"origin")
        if origin is not None and origin.partition("://")[2] != headers.get(b"host"):
            return False
        try:
            morsel = SimpleCookie(headers.get(b"cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return morsel is not None and hmac.compare_digest(morsel.value.encode(), _pass_of(token).encode())


async def _given(request: Request) -> bytes:
    """The token in the body of a form; nothing of one that is longer than any token, or no form."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_BYTES:
            return b""
    try:
        fields = parse_qs(body.decode("ascii"), max_num_fields=4)
    except ValueError:
        return b""
    return fields.get("token", [""])[0].encode()


def _with_query(path: str, scope: Scope) -> str:
    """The path with the query that came: it names the video that a link leads to."""
    query = scope["query_string"].decode("latin-1")
    return f"{path}?{query}" if query else path


def _pass_of(token: str) -> str:
    """Return what the cookie holds: nobody finds the token from it."""
    return hmac.new(token.encode(), b"cookie of the demo", hashlib.sha256).hexdigest()


def _with_token(scope: Scope, token: str) -> Scope:
    kept = [(name, value) for name, value in scope["headers"] if name != b"authorization"]
    return {**scope, "headers": [*kept, (b"authorization", f"Bearer {token}".encode())]}


def _with_policy(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *_HEADERS]
        await send(message)

    return sending


def _entrance(text: str, status: int = 200) -> HTMLResponse:
    return HTMLResponse(_ENTRANCE.substitute(text=escape(text)), status)
