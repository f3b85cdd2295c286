"""A small client of the HTTP API: make videos on a server, watch them grow, change their prompt on the way.

    with Client("http://127.0.0.1:8000") as client:
        video = client.create("A cat running on the street", num_frames=80)
        for chunk in client.stream(video["id"]):
            file.write(chunk)

Needs the extra `client`. Objects are as the server sends them, dicts; see docs/api.md for their fields.
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
    """The server refused or failed: its words, the HTTP status, and the code and argument that it names."""

    def __init__(self, message: str, status: int, code: str | None = None, param: str | None = None):
        self.status, self.code, self.param = status, code, param
        super().__init__(message)


class Client:
    """Talks to one server. token: where it needs one. seconds: without an answer, until it is given up."""

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
        """Queue a video. input_reference: a picture to start from or a video to go on with. settings: fields as in docs/api.md.

        key: sending the same again with the same key makes no second one. `ServerError` if it is refused, as everywhere here.
        """
        return self._send(
            "/v1/videos", {"prompt": prompt, **settings}, "input_reference", input_reference, key
        )

    def extend(self, video: str | Path, prompt: str, *, key: str | None = None, **settings: Any) -> Object:
        """Queue a video that goes on with another one, given by its id or as a file."""
        if isinstance(video, Path):
            return self._send("/v1/videos/extensions", {"prompt": prompt, **settings}, "video", video, key)
        return self._send(
            "/v1/videos/extensions",
            {"prompt": prompt, "video": {"id": video}, **settings},
            "video",
            None,
            key,
        )

    def remix(self, id: str, prompt: str | None = None, **changes: Any) -> Object:
        """Queue the same video with another prompt, `seed` or `preset`; what is left out stays."""
        return self._json(
            "POST", f"/v1/videos/{id}/remix", json=changes | ({} if prompt is None else {"prompt": prompt})
        )

    def refine(self, id: str) -> Object:
        """Queue a preview, refined: stage 3 alone on its frames as they were made."""
        return self._json("POST", f"/v1/videos/{id}/refine")

    def change_prompt(self, id: str, prompt: str) -> Object:
        """Show something else from the next chunk on."""
        return self._json("POST", f"/v1/videos/{id}/prompt", json={"prompt": prompt})

    def get(self, id: str) -> Object:
        """Return how far a video is."""
        return self._json("GET", f"/v1/videos/{id}")

    def list(self, limit: int = 20) -> Iterator[Object]:
        """All videos, the newest first, a page of `limit` at a time."""
        after: dict[str, str] = {}
        while True:
            page = self._json("GET", "/v1/videos", params={"limit": limit, **after})
            yield from page["data"]
            if not page["has_more"]:
                return
            after = {"after": page["last_id"]}

    def cancel(self, id: str) -> Object:
        """Stop a video; what there is of it stays."""
        return self._json("POST", f"/v1/videos/{id}/cancel")

    def delete(self, id: str) -> Object:
        """Stop and delete a video."""
        return self._json("DELETE", f"/v1/videos/{id}")

    def wait(self, id: str, seconds: float | None = None) -> Object:
        """The video when it has ended. TimeoutError if that takes longer."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            video = self.get(id)
            if video["status"] in ENDED:
                return video
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"{id} is {video['status']} after {seconds} s")
            time.sleep(0.2)

    def events(self, id: str) -> Iterator[Object]:
        """The video now and after every change, until it has ended."""
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
        """The video's file while it grows, to its end: a fragmented MP4 that plays from the first piece on."""
        with self._http.stream("GET", f"/v1/videos/{id}/content", timeout=None) as answer:
            _check(answer)
            yield from answer.iter_bytes()

    def download(self, id: str, path: Path, variant: Variant = "video") -> Path:
        """Write the video (waiting for its end), its first frame (WebP) or a sheet of its frames (JPEG) to a file, whole or not at all:
        where there is none, or the connection breaks, a file that was there stays as it was.
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
        """A live session over a WebSocket, for the time of the block: iterate over it, and change its prompt meanwhile.

        When its connection breaks, it goes on with the next segment over a new one, for as long as the client waits for an answer.
        """
        from websockets.sync.client import connect

        url = urljoin(re.sub("^http", "ws", self.url), "/v1/realtime/video")
        start = {
            "type": "session.start",
            "prompt": prompt,
            "idempotency_key": key or secrets.token_hex(16),
            **settings,
        }
        session = Session(
            partial(connect, url, additional_headers=self._headers, max_size=None), start, self._seconds
        )
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
    """A segment of a session's video. data: fragmented MP4, of the first with its head. about: what the server says of it."""

    data: bytes
    about: Object


class Session:
    """A live session. video: as it was accepted; done: the last message, once it has ended; connections: how many it took so far.

    connect: makes a connection to the server. start: the first message. seconds: that a server may be away. Another thread than the one
    that iterates may change the prompt.
    """

    BREAKS = 10  # of the connection without a new segment, until the server is given up

    def __init__(
        self, connect: Callable[[], AbstractContextManager[ClientConnection]], start: Object, seconds: float
    ):
        self.video: Object = {}
        self.done: Object | None = None
        self._connect, self._start, self._seconds = connect, start, seconds
        self._lock = threading.Lock()
        self._unheard: dict[
            str, Object
        ] = {}  # what was sent and not answered yet: it may be lost with the connection
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
        """The segments as they come, each once, until the video has ended."""
        while self.done is None:
            message, data = self._received()
            if message["type"] == "video.chunk_metadata":
                yield Piece(data, message)
            elif message["type"] == "session.done":
                self.done = message

    def change_prompt(self, prompt: str, event_id: str | None = None) -> None:
        """Show something else from the next chunk on; the segment that begins with it names the event."""
        event_id = event_id or f"event-{secrets.token_hex(8)}"
        message = {
            "type": "session.interaction",
            "interaction": {"event": {"prompt": prompt}, "event_id": event_id},
        }
        self._say(event_id, message)

    def stop(self) -> None:
        """Stop the video; the iteration ends soon after."""
        self._say("", {"type": "session.stop"})

    def close(self) -> None:
        """Say goodbye; a video that is not done is stopped."""
        self._open.close()

    def _say(self, name: str, message: Object) -> None:
        with self._lock, suppress(*_broken()):  # then it is sent again over the next connection
            self._unheard[name] = message
            self._socket.send(json.dumps(message))

    def _received(self) -> tuple[Object, bytes]:
        """The next message, and what follows it. `ServerError` if it is one, or the server is gone for good."""
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
                    self._unheard.pop(next(iter(self._unheard)))  # answers come in order
            _check_message(message)
            return message, data

    def _reopen(self) -> None:
        """Another connection, which goes on where the last one broke."""
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
        with suppress(*_broken()):  # why it was closed is what is read next
            socket.send(json.dumps(resume if self.video else self._start))
        message = json.loads(socket.recv())
        _check_message(message)
        self.video = self.video or message["config"]
        self.connections += 1


def _broken() -> tuple[type[Exception], ...]:
    """Return what it is called when a connection breaks, or cannot be had for now."""
    from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

    return ConnectionClosed, InvalidHandshake, InvalidMessage, OSError


def _check_message(message: Object) -> None:
    """`ServerError` if the server refused."""
    if message["type"] == "error":
        raise ServerError(message["message"], 400, message.get("code"), message.get("param"))


def _check(answer: httpx2.Response) -> None:
    """`ServerError` if the server refused or failed."""
    if answer.is_success:
        return
    answer.read()
    try:
        problem = answer.json()["error"]
    except (ValueError, KeyError, TypeError):
        raise ServerError(answer.text[:200] or answer.reason_phrase, answer.status_code) from None
    raise ServerError(problem["message"], answer.status_code, problem.get("code"), problem.get("param"))
