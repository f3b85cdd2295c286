"""Cookie access for browsers, and the page's content security policy.

Browsers cannot send a bearer token with images and videos of a page. So visitors enter the token once and get
a cookie derived from it; requests with that cookie are passed on with the token.
"""

import asyncio
import base64
import hashlib
import hmac
from html import escape
from http.cookies import CookieError, SimpleCookie
from string import Template
from urllib.parse import parse_qs

from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PAGE = "/"
ENTER = "/enter"
COOKIE = "streamingt2v"
MOST_BYTES = 8192  # of the form with the token
WRONG_SECONDS = 1.0  # delay after a wrong token
READ_SECONDS = 15.0  # for the form with the token
_STYLE = """:root { color-scheme: light dark }
body { font: 1rem/1.5 system-ui, sans-serif; margin: 0 1rem }
body { display: grid; place-content: center; min-height: 90vh }
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
_TOKEN_FORM = Template(f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>StreamingT2V</title><style>{_STYLE}</style></head>
<body><main><h1>StreamingT2V</h1><p role="status">$text</p><form method="post">
<input name="token" type="password" autocomplete="current-password" aria-label="Token" required autofocus>
<button>Enter</button></form></main></body></html>""")


class Door:
    """ASGI middleware. token: the access token; None: no token needed."""

    def __init__(self, app: ASGIApp, token: str | None):
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
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
            await self._pass(scope, receive, send)  # the API checks its bearer token

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_page = scope["type"] == "http" and scope["path"] == PAGE
        await self._app(scope, receive, _with_policy(send) if is_page else send)

    async def _enter(self, request: Request, token: str) -> Response:
        if request.method != "POST":
            return _token_form("This server needs a token.")
        if not hmac.compare_digest(await _posted_token(request), token.encode()):
            await asyncio.sleep(WRONG_SECONDS)
            return _token_form("Wrong token; try again.", 401)
        answer = RedirectResponse(_with_query(PAGE, request.scope), 303)
        secure = request.url.scheme == "https"
        # lax: links from other sites may use the cookie, as GET changes nothing
        answer.set_cookie(
            COOKIE, _cookie_value(token), max_age=7 * 24 * 3600, httponly=True, samesite="lax", secure=secure
        )
        return answer

    def _has_cookie(self, scope: Scope, token: str) -> bool:
        """Return whether the request has the cookie and comes from a page of this server."""
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        origin = headers.get(b"origin")
        if origin is not None and origin.partition("://")[2] != headers.get(b"host"):
            return False
        try:
            morsel = SimpleCookie(headers.get(b"cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return morsel is not None and hmac.compare_digest(
            morsel.value.encode(), _cookie_value(token).encode()
        )


async def _posted_token(request: Request) -> bytes:
    """Return the token of a posted form; empty for anything else."""
    body = b""
    try:
        async with asyncio.timeout(READ_SECONDS):
            async for piece in request.stream():
                body += piece
                if len(body) > MOST_BYTES:
                    return b""
    except (TimeoutError, ClientDisconnect):
        return b""
    try:
        fields = parse_qs(body.decode("ascii"), max_num_fields=4)
    except ValueError:
        return b""
    return fields.get("token", [""])[0].encode()


def _with_query(path: str, scope: Scope) -> str:
    """Return the path with the query of the request, which names the video."""
    query = scope["query_string"].decode("latin-1")
    return f"{path}?{query}" if query else path


def _cookie_value(token: str) -> str:
    """Return the cookie's value, which does not reveal the token."""
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


def _token_form(text: str, status: int = 200) -> HTMLResponse:
    return HTMLResponse(_TOKEN_FORM.substitute(text=escape(text)), status)
