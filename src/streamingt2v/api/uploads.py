"""Bodies of requests, JSON or multipart, and the files in them: written under names made here, kept only if they can be read."""

from __future__ import annotations

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
from ..jobs.service import JobService, Key
from ..jobs.settings import Limits
from .schemas import ImageReference, from_form

Asked = TypeVar("Asked", bound=BaseModel)
_PIECE = 1 << 20
_FIELDS = 64  # in a form
_FIELD_BYTES = 4 << 20
FETCH_SECONDS = 20.0


@dataclass(frozen=True)
class Upload:
    """A file on the disk that has been read to its end."""

    path: Path
    found: Found
    sha256: str


@dataclass
class Body:
    """A request's fields, and the files that came with it by their fields."""

    fields: dict[str, Any]
    files: dict[str, Upload] = field(default_factory=dict)

    def as_(self, kind: type[Asked]) -> Asked:
        """The fields, checked. pydantic's ValidationError if they are wrong."""
        return kind.model_validate(self.fields)

    def key(self, name: str | None, about: str) -> Key | None:
        """The idempotency key of a client's header, for this very body at the route `about`."""
        if name is None:
            return None
        said = json.dumps(
            [about, self.fields, {field: file.sha256 for field, file in self.files.items()}], sort_keys=True
        )
        return Key(name, hashlib.sha256(said.encode()).hexdigest())


class Uploads:
    """Takes in what clients send to a service. allowed_hosts: whose https addresses of pictures may be fetched."""

    def __init__(self, service: JobService, allowed_hosts: frozenset[str] = frozenset()):
        self._service, self._limits, self._allowed = service, service.limits, allowed_hosts

    @asynccontextmanager
    async def body(self, http: HttpRequest, *files: str) -> AsyncIterator[Body]:
        """The body, with the files of these fields for the time of the block. RequestError or MediaError if it is wrong."""
        if http.headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
            yield Body(await _json(http))
            return
        async with AsyncExitStack() as stack:
            yield await self._form(http, files, stack)

    @asynccontextmanager
    async def picture(self, reference: ImageReference | None) -> AsyncIterator[Upload | None]:
        """The picture that an address leads to, for the time of the block; None without one."""
        if reference is None:
            yield None
            return
        data = await self._content(reference.image_url)
        async with AsyncExitStack() as stack:
            path = await self._new(stack)
            await run_in_threadpool(path.write_bytes, data)
            yield await self._checked("input_reference", path)

    async def _form(self, http: HttpRequest, files: tuple[str, ...], stack: AsyncExitStack) -> Body:
        watched = _Watched(http)
        async with watched.request.form(
            max_files=len(files), max_fields=_FIELDS, max_part_size=_FIELD_BYTES
        ) as form:
            if not watched.ended:
                raise RequestError("body", "a form", "is cut off before its last boundary; send it again")
            body = Body(
                from_form([(name, value) for name, value in form.multi_items() if isinstance(value, str)])
            )
            if isinstance(schedule := body.fields.get("schedule"), str):
                body.fields["schedule"] = [
                    list(entry) for entry in parse_schedule(schedule, texts.shortened(schedule))
                ]
            for name, value in form.multi_items():
                if isinstance(value, UploadFile):
                    if name not in files:
                        raise RequestError(
                            name, "a file", f"files come as {' or '.join(files) or 'nothing here'}"
                        )
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
        """A path for a file, deleted when the stack is closed."""
        upload = self._service.upload()
        path = await run_in_threadpool(upload.__enter__)
        stack.push_async_callback(run_in_threadpool, upload.__exit__, None, None, None)
        return path

    async def _content(self, url: str) -> bytes:
        if url.startswith("data:"):
            return await run_in_threadpool(_of_data_url, url)
        if _https_place(url) not in self._allowed:
            fix = "send the picture itself, as a file or a data: URL; this server fetches no such address"
            raise RequestError("input_reference", url[:200], fix)
        return await _fetched(url, self._limits.upload_bytes)


def _copy(file: UploadFile, path: Path) -> None:
    with path.open("wb") as target:
        shutil.copyfileobj(file.file, target, _PIECE)


def _inspected(path: Path, limits: Limits) -> Upload:
    """The file, now with a suffix, read to its end within the limits. MediaError if it cannot be."""
    found = identify_file(path)
    named = path.with_suffix(found.suffix)
    path.rename(named)
    found = inspect(named, found, limits)
    with named.open("rb") as file:
        return Upload(named, found, hashlib.file_digest(file, "sha256").hexdigest())


class _Watched:
    """A form as it comes. request: to read it by; ended: whether its last boundary has come. (The parser takes one that is cut off.)"""

    def __init__(self, http: HttpRequest):
        _, options = parse_options_header(http.headers.get("content-type"))
        self._receive, self._end, self._tail = (
            http.receive,
            b"--" + options.get(b"boundary", b"") + b"--",
            b"",
        )
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
    """Parse JSON from a client. RequestError, for the argument `name`, where it is none, or has more names than anything here."""
    try:
        return json.loads(texts.decoded(data), object_pairs_hook=_object, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        why = f": {error}" if isinstance(error, _Refused) else ""
        raise RequestError(name, data[:40].decode(errors="replace"), f"is no JSON{why}") from error


class _Refused(ValueError):
    """JSON, but not what is meant by it here."""


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
    """Host of an https address, with its port where that is not the usual one; None if it is no such address."""
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
        if not comma or not head.endswith(";base64"):
            raise ValueError("no base64")
        return base64.b64decode(data, validate=True)
    except (ValueError, binascii.Error) as error:
        raise RequestError("input_reference", url[:40], "must be like data:image/png;base64,...") from error


async def _fetched(url: str, most: int) -> bytes:
    """Return what is at an address of an allowed host; it cannot lead elsewhere, or send more than so many bytes."""
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
    except (
        httpx2.HTTPError,
        httpx2.InvalidURL,
        OSError,
        ValueError,
    ) as error:  # OSError: TimeoutError as well
        raise RequestError(
            "input_reference", url[:200], f"cannot be fetched: {type(error).__name__}"
        ) from error
    return bytes(data)
