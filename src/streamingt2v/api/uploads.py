"""Parse request bodies, JSON or multipart; store their files under generated names if readable."""

import asyncio
import base64
import binascii
import hashlib
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from fastapi import Request as HttpRequest
from pydantic import BaseModel
from python_multipart.multipart import parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.types import Message

from .. import texts
from ..config.schedule import parse_schedule
from ..errors import MediaError, RequestError
from ..jobs.inspection import Found, identify_file, inspect
from ..jobs.job import Key, QueueFull
from ..jobs.service import JobService
from ..jobs.settings import Limits
from .schemas import ImageReference

Kind = TypeVar("Kind", bound=BaseModel)
_PIECE = 1 << 20
_FIELDS = 64  # in a form
_FIELD_BYTES = 4 << 20
FETCH_SECONDS = 20.0


@dataclass(frozen=True)
class Upload:
    """A file on disk that was decoded completely."""

    path: Path
    found: Found
    sha256: str


@dataclass
class Body:
    """A request's fields, and its files by field."""

    fields: dict[str, Any]
    files: dict[str, Upload] = field(default_factory=dict)

    def as_(self, kind: type[Kind]) -> Kind:
        """Return the validated fields. Raises pydantic's ValidationError."""
        return kind.model_validate(self.fields)

    def key(self, name: str | None, about: str) -> Key | None:
        """Return the idempotency key `name` for this body at the route `about`; None without a name."""
        if name is None:
            return None
        said = json.dumps(
            [about, self.fields, {field: file.sha256 for field, file in self.files.items()}], sort_keys=True
        )
        return Key(name, hashlib.sha256(said.encode()).hexdigest())


class Uploads:
    """Receive the uploads of a service. allowed_hosts: hosts whose https image URLs may be fetched."""

    def __init__(self, service: JobService, allowed_hosts: frozenset[str] = frozenset()):
        self._service, self._limits, self._allowed = service, service.limits, allowed_hosts
        self._receiving = 0

    @asynccontextmanager
    async def body(self, http: HttpRequest, *files: str) -> AsyncIterator[Body]:
        """Yield the body; the files of the fields `files` exist for the block.

        Raises RequestError or MediaError.
        """
        if http.headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
            yield Body(await _json(http))
            return
        async with AsyncExitStack() as stack:
            if files:
                await stack.enter_async_context(self._turn())
            yield await self._form(http, files, stack)

    @asynccontextmanager
    async def image(self, reference: ImageReference | None) -> AsyncIterator[Upload | None]:
        """Yield the image that a URL refers to, for the block; None without one."""
        if reference is None:
            yield None
            return
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._turn())
            data = await self._content(reference.image_url)
            path = await self._new(stack)
            await run_in_threadpool(path.write_bytes, data)
            yield await self._checked("input_reference", path)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Receive files in the block. Raises QueueFull if too many are received or stored."""
        if self._receiving >= self._limits.uploads:
            raise QueueFull(self._limits.uploads, "uploads are received")
        self._receiving += 1
        try:
            await run_in_threadpool(self._service.check_uploads)
            yield
        finally:
            self._receiving -= 1

    async def _form(self, http: HttpRequest, files: tuple[str, ...], stack: AsyncExitStack) -> Body:
        watched = _Watched(http)
        async with watched.request.form(
            max_files=len(files), max_fields=_FIELDS, max_part_size=_FIELD_BYTES
        ) as form:
            if not watched.ended:
                raise RequestError("body", "a form", "is cut off before its last boundary; send it again")
            items = [item for item in form.multi_items() if _is_sent(*item, files)]
            body = Body(_fields([(name, value) for name, value in items if isinstance(value, str)]))
            if isinstance(schedule := body.fields.get("schedule"), str):
                entries = parse_schedule(schedule, texts.shortened(schedule))
                body.fields["schedule"] = [list(entry) for entry in entries]
            for name, value in items:
                if isinstance(value, UploadFile):
                    if name not in files:
                        fix = f"files come as {' or '.join(files) or 'nothing here'}"
                        raise RequestError(name, "a file", fix)
                    path = await self._new(stack)
                    await run_in_threadpool(_copy, value, path)
                    body.files[name] = await self._checked(name, path)
            return body

    async def _checked(self, name: str, path: Path) -> Upload:
        try:
            return await run_in_threadpool(_inspected, path, self._limits)
        except MediaError as error:
            raise RequestError(name, "the file", str(error)) from error

    async def _new(self, stack: AsyncExitStack) -> Path:
        """Return a path for a file that is deleted when the stack closes."""
        upload = self._service.upload()
        path = await run_in_threadpool(upload.__enter__)
        stack.push_async_callback(run_in_threadpool, upload.__exit__, None, None, None)
        return path

    async def _content(self, url: str) -> bytes:
        if url[:5].lower() == "data:":
            return await run_in_threadpool(_of_data_url, url)
        if _https_place(url) not in self._allowed:
            fix = "send the image itself, as a file or a data: URL; this server fetches no such address"
            raise RequestError("input_reference", url[:200], fix)
        return await _fetched(url, self._limits.upload_bytes)


def _is_sent(name: str, value: str | UploadFile, files: tuple[str, ...]) -> bool:
    """Return whether a field holds something: browsers send a file that was not chosen as an empty text."""
    if name in files and isinstance(value, str):
        if value:
            raise RequestError(name, texts.shortened(value), "must be a file, sent with a file name")
        return False
    return True


def _copy(file: UploadFile, path: Path) -> None:
    with path.open("wb") as target:
        shutil.copyfileobj(file.file, target, _PIECE)


def _inspected(path: Path, limits: Limits) -> Upload:
    """Give a file its suffix and decode it within the limits. Raises MediaError."""
    found = identify_file(path)
    named = path.with_suffix(found.suffix)
    path.rename(named)
    found = inspect(named, found, limits)
    with named.open("rb") as file:
        return Upload(named, found, hashlib.file_digest(file, "sha256").hexdigest())


def _fields(values: list[tuple[str, str]]) -> dict[str, Any]:
    """Return a form's fields like those of JSON: `a[b]` is `b` of the object `a`.

    Raises RequestError for duplicates.
    """
    fields: dict[str, Any] = {}
    for name, value in values:
        outer, bracket, inner = name.partition("[")
        is_part = bool(bracket) and inner.endswith("]")
        into, key = (fields.setdefault(outer, {}), inner[:-1]) if is_part else (fields, name)
        if not isinstance(into, dict) or key in into:
            raise RequestError(name[:200], value[:40], "is given twice; leave one of them out")
        into[key] = value
    return fields


class _Watched:
    """Watch a form for its last boundary: the parser accepts truncated forms.

    Read it by `request`, then check `ended`.
    """

    def __init__(self, http: HttpRequest):
        _, options = parse_options_header(http.headers.get("content-type"))
        self._receive, self._tail = http.receive, b""
        self._end = b"--" + options.get(b"boundary", b"") + b"--"
        self.request, self.ended = HttpRequest(http.scope, self._watching), False

    async def _watching(self) -> Message:
        message = await self._receive()
        if not self.ended:
            seen = self._tail + message.get("body", b"")
            self.ended = self._end in seen
            self._tail = seen[-len(self._end) :]
        return message


async def _json(http: HttpRequest) -> dict[str, Any]:
    values = await run_in_threadpool(parsed, await http.body(), "body")
    if not isinstance(values, dict):
        raise RequestError("body", type(values).__name__, "must be a JSON object, or multipart/form-data")
    return values


def parsed(data: bytes, name: str) -> Any:
    """Parse JSON from a client.

    Raises RequestError, for the argument `name`, if it is malformed or has too many names.
    """
    try:
        return json.loads(texts.decoded(data), object_pairs_hook=_object, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        why = f": {error}" if isinstance(error, _Refused) else ""
        raise RequestError(name, data[:40].decode(errors="replace"), f"is no JSON{why}") from error


class _Refused(ValueError):
    """Valid JSON that is not accepted."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs) if len(pairs) <= _FIELDS else {}
    if len(pairs) > _FIELDS:
        raise _Refused(f"an object has more than {_FIELDS} names")
    if len(values) < len(pairs):
        raise _Refused("a name is given twice in an object")
    return values


def _no_number(text: str) -> None:
    raise _Refused(f"{text} is no number")


def _https_place(url: str) -> str | None:
    """Return the host of an https URL, with a port other than 443; None for any other URL."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme != "https" or not parts.hostname or "@" in parts.netloc:
        return None
    return parts.hostname if port in (None, 443) else f"{parts.hostname}:{port}"


def _of_data_url(url: str) -> bytes:
    head, comma, data = url.partition(",")
    try:
        if not comma or not head.lower().endswith(";base64"):
            raise ValueError("no base64")
        return base64.b64decode("".join(data.split()), validate=True)  # `base64 FILE` breaks lines
    except (ValueError, binascii.Error) as error:
        raise RequestError("input_reference", url[:40], "must be like data:image/png;base64,...") from error


async def _fetched(url: str, most: int) -> bytes:
    """Fetch a URL of an allowed host, without redirects.

    Raises RequestError, also for more than `most` bytes.
    """
    import httpx2

    data = bytearray()
    try:
        async with (
            asyncio.timeout(3 * FETCH_SECONDS),
            httpx2.AsyncClient(timeout=FETCH_SECONDS, follow_redirects=False) as client,
            client.stream("GET", url) as answer,
        ):
            if answer.status_code != 200:
                raise RequestError("input_reference", url[:200], f"answers with {answer.status_code}")
            async for piece in answer.aiter_bytes():
                data += piece
                if len(data) > most:
                    raise RequestError("input_reference", url[:200], f"has more than {most} bytes")
    except RequestError:
        raise
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:  # OSError: timeouts too
        fix = f"cannot be fetched: {type(error).__name__}"
        raise RequestError("input_reference", url[:200], fix) from error
    return bytes(data)
