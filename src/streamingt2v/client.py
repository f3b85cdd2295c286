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
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urljoin

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
        self.url = url

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def create(self, prompt: str, *, input_reference: Path | None = None, key: str | None = None, **settings: Any) -> Object:
        """Queue a video. input_reference: a picture to start from or a video to go on with. settings: fields as in docs/api.md.

        key: sending the same again with the same key makes no second one. `ServerError` if it is refused, as everywhere here.
        """
        return self._send("/v1/videos", {"prompt": prompt, **settings}, "input_reference", input_reference, key)

    def extend(self, video: str | Path, prompt: str, *, key: str | None = None, **settings: Any) -> Object:
        """Queue a video that goes on with another one, given by its id or as a file."""
        if isinstance(video, Path):
            return self._send("/v1/videos/extensions", {"prompt": prompt, **settings}, "video", video, key)
        return self._send("/v1/videos/extensions", {"prompt": prompt, "video": {"id": video}, **settings}, "video", None, key)

    def remix(self, id: str, prompt: str) -> Object:
        """Queue the same video with another prompt."""
        return self._json("POST", f"/v1/videos/{id}/remix", json={"prompt": prompt})

    def change_prompt(self, id: str, prompt: str) -> Object:
        """Show something else from the next chunk on."""
        return self._json("POST", f"/v1/videos/{id}/prompt", json={"prompt": prompt})

    def get(self, id: str) -> Object:
        """How far a video is."""
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
        """Write the video (waiting for its end), its first frame (WebP) or a sheet of its frames (JPEG) to a file."""
        if variant == "video":
            self.wait(id)
        with self._http.stream("GET", f"/v1/videos/{id}/content", params={"variant": variant}) as answer, path.open("wb") as file:
            _check(answer)
            for piece in answer.iter_bytes():
                file.write(piece)
        return path

    @contextmanager
    def session(self, prompt: str, **settings: Any) -> Iterator[Session]:
        """A live session over a WebSocket, for the time of the block: iterate over it, and change its prompt meanwhile."""
        from websockets.sync.client import connect

        url = urljoin(re.sub("^http", "ws", self.url), "/v1/realtime/video")
        with connect(url, additional_headers=self._headers, max_size=None) as socket:
            session = Session(socket)
            session.send("session.start", prompt=prompt, **settings)
            session.video = session.expect("video.start")["config"]
            yield session

    def _send(self, path: str, fields: Object, name: str, file: Path | None, key: str | None) -> Object:
        headers = {"Idempotency-Key": key} if key else {}
        if file is None:
            return self._json("POST", path, json=fields, headers=headers)
        form = {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items() if value is not None}
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


@dataclass
class Session:
    """A live session. video: as it was accepted; done: the last message, once it has ended."""

    _socket: ClientConnection
    video: Object = field(default_factory=dict)
    done: Object | None = None

    def __iter__(self) -> Iterator[Piece]:
        """The segments as they come, until the video has ended."""
        while True:
            message = self._message()
            if message["type"] == "video.chunk_metadata":
                data = self._socket.recv()
                assert isinstance(data, bytes), "a binary frame follows"
                yield Piece(data, message)
            elif message["type"] == "session.done":
                self.done = message
                return

    def change_prompt(self, prompt: str, event_id: str | None = None) -> None:
        """Show something else from the next chunk on; the segment that begins with it names the event."""
        named = {"event_id": event_id} if event_id else {}
        self.send("session.interaction", interaction={"event": {"prompt": prompt}, **named})

    def stop(self) -> None:
        """Stop the video; the iteration ends soon after."""
        self.send("session.stop")

    def send(self, kind: str, **values: Any) -> None:
        """A message of the protocol."""
        from websockets.exceptions import ConnectionClosed

        with suppress(ConnectionClosed):  # why it was closed is the next message that is read
            self._socket.send(json.dumps({"type": kind, **values}))

    def expect(self, kind: str) -> Object:
        """The next message of a kind."""
        while (message := self._message())["type"] != kind:
            pass
        return message

    def _message(self) -> Object:
        from websockets.exceptions import ConnectionClosed

        try:
            message = json.loads(self._socket.recv())
        except ConnectionClosed as error:
            raise ServerError(f"the server closed the session: {error}", 503) from error
        if message["type"] == "error":
            raise ServerError(message["message"], 400, message.get("code"), message.get("param"))
        return message


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
