"""In front of the page and the API: browsers come in with a cookie, and their page loads nothing from elsewhere.

A browser cannot send a bearer token with every picture and video that a page shows. So whoever has the token gives it once, and then has
a cookie, which is made from the token but is not it; behind this door a request with that cookie carries the token.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from html import escape
from http.cookies import CookieError, SimpleCookie
from string import Template
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PAGE = "/demo"
ENTER = "/enter"
COOKIE = "streamingt2v"
WRONG_SECONDS = 1.0  # that a wrong token costs
_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",  # Gradio's own scripts need both
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' data: blob:",
        "worker-src 'self' blob:",
        "frame-ancestors 'self'",
        "form-action 'self'",
    )
)
_HEADERS = [(b"content-security-policy", _POLICY.encode()), (b"referrer-policy", b"no-referrer")]
_ENTRANCE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>StreamingT2V</title><style>
:root { color-scheme: light dark }
body { font: 1rem/1.5 system-ui, sans-serif; display: grid; place-content: center; min-height: 90vh; margin: 0 1rem }
input, button { font: inherit; padding: .6rem .8rem; border-radius: .5rem; border: 1px solid #8888 }
form { display: flex; gap: .5rem; flex-wrap: wrap }
</style></head><body><h1>StreamingT2V</h1><p>$text</p>
<form method="post"><input name="token" type="password" autocomplete="current-password" aria-label="Token" required autofocus>
<button>Enter</button></form></body></html>""")


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
        elif scope["type"] == "http" and scope["path"].rstrip("/") in ("", PAGE):
            await RedirectResponse(ENTER, 303)(scope, receive, send)
        else:
            await self._pass(scope, receive, send)  # with a bearer token, or to be refused

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_page = scope["type"] == "http" and scope["path"].startswith(PAGE)
        await self._app(scope, receive, _with_policy(send) if is_page else send)

    async def _enter(self, request: Request, token: str) -> Response:
        if request.method != "POST":
            return _entrance("This server needs a token.")
        async with request.form(max_files=0, max_fields=4, max_part_size=4096) as form:
            given = str(form.get("token", ""))
        if not hmac.compare_digest(given.encode(), token.encode()):
            await asyncio.sleep(WRONG_SECONDS)
            return _entrance("That is not it; try again.", 401)
        answer = RedirectResponse(f"{PAGE}/", 303)
        secure = request.url.scheme == "https"
        answer.set_cookie(COOKIE, _pass_of(token), max_age=7 * 24 * 3600, httponly=True, samesite="strict", secure=secure)
        return answer

    def _has_cookie(self, scope: Scope, token: str) -> bool:
        """Whether a page of this server, and not one from elsewhere, comes with the cookie."""
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        origin = headers.get(b"origin")
        if origin is not None and urlsplit(origin).netloc != headers.get(b"host"):
            return False
        try:
            morsel = SimpleCookie(headers.get(b"cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return morsel is not None and hmac.compare_digest(morsel.value.encode(), _pass_of(token).encode())


def _pass_of(token: str) -> str:
    """What the cookie holds: nobody finds the token from it."""
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
