"""A client of the HTTP API: make videos on a server, watch them grow, change their prompts.

    with Client("http://127.0.0.1:8000") as client:
        video = client.create("A cat running on the street", num_frames=80)
        for chunk in client.stream(video["id"]):
            file.write(chunk)

Needs the extra `client`. Objects are dicts as the server sends them; docs/api.md lists their fields.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urljoin

from . import durable
from .errors import MissingExtra, StreamingT2VError

if TYPE_CHECKING:
    import httpx2
    from websockets.sync.client import ClientConnection

Object = dict[str, Any]
ENDED = ("completed", "failed", "cancelled")
Variant = Literal["video", "thumbnail", "spritesheet"]


class ServerError(StreamingT2VError):
    """The server refused or failed: its message, HTTP status, error code and argument."""

    def __init__(self, message: str, status: int, code: str | None = None, param: str | None = None):
        self.status, self.code, self.param = status, code, param
        super().__init__(message)


class Client:
    """A client of one server. seconds: timeout for a response."""

    def __init__(self, url: str = "http://127.0.0.1:8000", token: str | None = None, seconds: float = 60.0):
        try:
            import httpx2
        except ImportError as error:
            raise MissingExtra("client", "client") from error
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx2.Client(base_url=url, headers=self._headers, timeout=seconds)
        self.url, self._seconds = url, seconds

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def create(
        self, prompt: str, *, input_reference: Path | None = None, key: str | None = None, **settings: Any
    ) -> Object:
        """Queue a video.

        input_reference: an image to start from or a video to extend. settings: see docs/api.md.

        key: idempotency key; repeating the request with it makes no second video. Raises ServerError, like
        all methods.
        """
        fields = {"prompt": prompt, **settings}
        return self._send("/v1/videos", fields, "input_reference", input_reference, key)

    def extend(self, video: str | Path, prompt: str, *, key: str | None = None, **settings: Any) -> Object:
        """Queue a video that extends another one, given by its id or as a file."""
        file = video if isinstance(video, Path) else None
        fields = {"prompt": prompt, **settings} | ({} if file else {"video": {"id": video}})
        return self._send("/v1/videos/extensions", fields, "video", file, key)

    def remix(self, id: str, prompt: str | None = None, **changes: Any) -> Object:
        """Queue a copy of a video with another prompt, `seed` or `preset`."""
        given = {} if prompt is None else {"prompt": prompt}
        return self._json("POST", f"/v1/videos/{id}/remix", json=changes | given)

    def refine(self, id: str) -> Object:
        """Queue a preview's lossless frames for stage 3."""
        return self._json("POST", f"/v1/videos/{id}/refine")

    def change_prompt(self, id: str, prompt: str) -> Object:
        """Change the prompt from the next chunk on."""
        return self._json("POST", f"/v1/videos/{id}/prompt", json={"prompt": prompt})

    def get(self, id: str) -> Object:
        """Return a video with its progress."""
        return self._json("GET", f"/v1/videos/{id}")

    def list(self, limit: int = 20) -> Iterator[Object]:
        """Yield all videos, newest first, fetched in pages of `limit`."""
        after: dict[str, str] = {}
        while True:
            page = self._json("GET", "/v1/videos", params={"limit": limit, **after})
            yield from page["data"]
            if not page["has_more"]:
                return
            after = {"after": page["last_id"]}

    def cancel(self, id: str) -> Object:
        """Stop a video and keep its frames."""
        return self._json("POST", f"/v1/videos/{id}/cancel")

    def delete(self, id: str) -> Object:
        """Stop and delete a video."""
        return self._json("DELETE", f"/v1/videos/{id}")

    def wait(self, id: str, seconds: float | None = None) -> Object:
        """Wait until a video has ended; return it. Raises TimeoutError after `seconds`."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            video = self.get(id)
            if video["status"] in ENDED:
                return video
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"{id} is {video['status']} after {seconds} s")
            time.sleep(0.2)

    def events(self, id: str) -> Iterator[Object]:
        """Yield the video now and after every change, until it has ended."""
        with self._http.stream("GET", f"/v1/videos/{id}/events", timeout=None) as answer:
            _check(answer)
            kind = ""
            for line in answer.iter_lines():
                name, _, value = line.partition(": ")
                if name == "event":
                    kind = value
                elif name == "data" and kind == "video":
                    yield json.loads(value)

    def stream(self, id: str) -> Iterator[bytes]:
        """Yield the video's file while it grows, as a fragmented MP4 that plays from the first bytes on."""
        with self._http.stream("GET", f"/v1/videos/{id}/content", timeout=None) as answer:
            _check(answer)
            yield from answer.iter_bytes()

    def download(self, id: str, path: Path, variant: Variant = "video") -> Path:
        """Write the video (waiting for its end), its first frame (WebP) or a contact sheet (JPEG) to a file.

        The file appears complete or not at all; on an error an existing file stays as it was.
        """
        if variant == "video":
            self.wait(id)
        with self._http.stream("GET", f"/v1/videos/{id}/content", params={"variant": variant}) as answer:
            _check(answer)
            with durable.replacing(path) as part, part.open("wb") as file:
                for piece in answer.iter_bytes():
                    file.write(piece)
        return path

    @contextmanager
    def session(self, prompt: str, *, key: str | None = None, **settings: Any) -> Iterator[Session]:
        """Open a live WebSocket session for the block: iterate over it, and change its prompt meanwhile.

        A broken connection is replaced and continues with the next segment, for at most the client's timeout.
        """
        from websockets.sync.client import connect

        url = urljoin(re.sub("^http", "ws", self.url), "/v1/realtime/video")
        key = key or secrets.token_hex(16)
        start = {"type": "session.start", "prompt": prompt, "idempotency_key": key, **settings}
        opening = partial(connect, url, additional_headers=self._headers, max_size=None)
        session = Session(opening, start, self._seconds)
        try:
            yield session
        finally:
            session.close()

    def _send(self, path: str, fields: Object, name: str, file: Path | None, key: str | None) -> Object:
        headers = {"Idempotency-Key": key} if key else {}
        if file is None:
            return self._json("POST", path, json=fields, headers=headers)
        form = {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in fields.items()
            if value is not None
        }
        with file.open("rb") as opened:
            return self._json("POST", path, data=form, files={name: opened}, headers=headers)

    def _json(self, method: str, path: str, **arguments: Any) -> Object:
        answer = self._http.request(method, path, **arguments)
        _check(answer)
        return answer.json()


@dataclass(frozen=True)
class Piece:
    """A segment of a session's video.

    data: fragmented MP4, the first with its header. about: the server's metadata.
    """

    data: bytes
    about: Object


class Session:
    """A live session.

    video: as accepted; done: the last message once it has ended; connections: number made so far.

    connect: opens a connection to the server. start: the first message. seconds: how long the server may be
    away. Another thread may change the prompt during the iteration.
    """

    BREAKS = 10  # most broken connections without a new segment

    def __init__(
        self, connect: Callable[[], AbstractContextManager[ClientConnection]], start: Object, seconds: float
    ):
        self.video: Object = {}
        self.done: Object | None = None
        self._connect, self._start, self._seconds = connect, start, seconds
        self._lock = threading.Lock()
        self._unheard: dict[str, Object] = {}  # sent but unanswered messages, to repeat after a break
        self._chunks = self._breaks = self.connections = 0
        self._open = ExitStack()
        self._socket = self._open.enter_context(connect())
        try:
            self._begin(self._socket)
        except _broken():
            self._reopen()
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[Piece]:
        """Yield every segment once, until the video has ended."""
        while self.done is None:
            message, data = self._received()
            if message["type"] == "video.chunk_metadata":
                yield Piece(data, message)
            elif message["type"] == "session.done":
                self.done = message

    def change_prompt(self, prompt: str, event_id: str | None = None) -> None:
        """Change the prompt from the next chunk on; the segment that begins with it names the event."""
        event_id = event_id or f"event-{secrets.token_hex(8)}"
        interaction = {"event": {"prompt": prompt}, "event_id": event_id}
        self._say(event_id, {"type": "session.interaction", "interaction": interaction})

    def stop(self) -> None:
        """Stop the video; the iteration ends soon after."""
        self._say("", {"type": "session.stop"})

    def close(self) -> None:
        """Close the connection; the server stops an unfinished video."""
        self._open.close()

    def _say(self, name: str, message: Object) -> None:
        with self._lock, suppress(*_broken()):  # sent again over the next connection
            self._unheard[name] = message
            self._socket.send(json.dumps(message))

    def _received(self) -> tuple[Object, bytes]:
        """Return the next message and its data.

        Raises ServerError if the server refuses or does not come back.
        """
        while True:
            try:
                message, data = json.loads(self._socket.recv()), b""
                if message["type"] == "video.chunk_metadata":
                    following = self._socket.recv()
                    assert isinstance(following, bytes), "a binary frame follows"
                    data, self._chunks, self._breaks = following, self._chunks + 1, 0
            except _broken():
                self._reopen()
                continue
            with self._lock:
                if message["type"] == "session.interaction.queued":
                    self._unheard.pop(message["event_id"], None)
                elif message["type"] == "error" and self._unheard:
                    self._unheard.pop(next(iter(self._unheard)))  # responses come in order
            _check_message(message)
            return message, data

    def _reopen(self) -> None:
        """Connect again and resume after the last segment."""
        self._breaks += 1
        deadline, pause, error = time.monotonic() + self._seconds, 0.1, None
        while self._breaks <= self.BREAKS and time.monotonic() < deadline:
            try:
                self._open.close()
                socket = self._open.enter_context(self._connect())
                self._begin(socket)
                with self._lock:
                    self._socket = socket
                    for message in self._unheard.values():
                        socket.send(json.dumps(message))
                return
            except _broken() as trouble:
                error = trouble
            except ServerError as refused:
                if refused.code != "queue_full" or not self.video:
                    raise
                error = refused
            time.sleep(pause)
            pause = min(2 * pause, 2.0)
        raise ServerError(f"the server closed the session: {error or 'again and again'}", 503) from error

    def _begin(self, socket: ClientConnection) -> None:
        resume = {"type": "session.resume", "video_id": self.video.get("id"), "chunks": self._chunks}
        with suppress(*_broken()):  # the next read tells why
            socket.send(json.dumps(resume if self.video else self._start))
        message = json.loads(socket.recv())
        _check_message(message)
        self.video = self.video or message["config"]
        self.connections += 1


def _broken() -> tuple[type[Exception], ...]:
    """Return the exceptions of a broken or refused connection."""
    from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

    return ConnectionClosed, InvalidHandshake, InvalidMessage, OSError


def _check_message(message: Object) -> None:
    """Raise ServerError if the message is an error."""
    if message["type"] == "error":
        raise ServerError(message["message"], 400, message.get("code"), message.get("param"))


def _check(answer: httpx2.Response) -> None:
    """Raise ServerError unless the response is a success."""
    if answer.is_success:
        return
    answer.read()
    try:
        problem = answer.json()["error"]
    except (ValueError, KeyError, TypeError):
        raise ServerError(answer.text[:200] or answer.reason_phrase, answer.status_code) from None
    raise ServerError(problem["message"], answer.status_code, problem.get("code"), problem.get("param"))
