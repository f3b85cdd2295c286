"""Sessions whose connection breaks resume with the next segment, on any server; deserted ones stop."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
from websockets.sync.client import connect

from serving import served
from streamingt2v import Request
from streamingt2v.client import Client, ServerError
from streamingt2v.jobs import sessions
from streamingt2v.jobs.job import Conflict
from streamingt2v.jobs.service import JobService
from streamingt2v.jobs.settings import Settings


class Wire:
    """A port that forwards to one of the addresses, and can be cut."""

    def __init__(self, *urls: str):
        self.targets = [(urlsplit(url).hostname, urlsplit(url).port) for url in urls]
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = []
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break the connection as if a cable were pulled."""
        for end in self._open:
            end.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def _accept(self) -> None:
        while True:
            here, _ = self._listener.accept()
            try:
                there = socket.create_connection(self.targets[self.connections % len(self.targets)])
            except OSError:
                here.close()
                continue
            self.connections += 1
            self._open += [here, there]
            for pair in ((here, there), (there, here)):
                threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass


@contextmanager
def two_servers(toy, folder) -> Iterator[tuple[list[JobService], list[str]]]:
    """Run two servers over one folder, each with a worker; yield them and their addresses."""
    settings = Settings(folder, (str(toy),), shared=True)
    with (
        JobService(settings) as first,
        JobService(settings) as second,
        served(first) as one,
        served(second) as two,
    ):
        first.wait_until_ready()
        second.wait_until_ready()
        yield [first, second], [one, two]


def test_a_session_goes_on_at_another_server_without_losing_or_repeating_a_segment(toy, service, tmp_path):
    with two_servers(toy, tmp_path / "shared") as (services, urls):
        wire = Wire(*urls)
        with Client(wire.url) as client, client.session("A cat", num_frames=160, seed=3) as session:
            pieces = []
            for piece in session:
                pieces.append(piece)
                if len(pieces) in (2, 5, 9):
                    wire.cut()
                if len(pieces) == 5:
                    session.change_prompt("A dog", "dog")  # into a connection that is broken
        assert wire.connections == 4 and session.done["status"] == "completed"
        assert [piece.about["transport_chunk_index"] for piece in pieces] == list(
            range(session.done["chunks"])
        )
        assert [piece.about["started_event_ids"] for piece in pieces].count(["dog"]) == 1
        starts = [piece.about["started_event_ids"] for piece in pieces]
        assert [piece.about["active_event_ids"] for piece in pieces] == [
            ["dog"] if i >= starts.index(["dog"]) else [] for i in range(len(starts))
        ]
        job = services[0].get(session.video["id"])
        assert b"".join(piece.data for piece in pieces) == b"".join(
            part.read_bytes() for part in services[1].files.segments(job)
        )
        at = sum(piece.about["num_frames"] for piece in pieces[: starts.index(["dog"])])
        alone = service.wait(service.submit(replace(job.request, schedule=((at, "A dog"),))).id)
        assert services[0].video(job.id).read_bytes() == service.video(alone.id).read_bytes()


def test_a_session_that_is_started_twice_is_one_job(url, service):
    """The response to the first `session.start` is lost, so the client sends it again."""
    before, start = (
        service.store.ids(),
        {"type": "session.start", "prompt": "A cat", "num_frames": 24, "idempotency_key": "session-1"},
    )
    with realtime(url) as socket:
        socket.send(json.dumps(start))
        id = json.loads(socket.recv())["request_id"]
        with realtime(url) as again:
            assert send_until(again, "session.done", **start)["video_id"] == id
    assert service.store.ids() - before == {id}


def send_until(socket, kind: str, **message) -> dict:
    socket.send(json.dumps(message))
    while True:
        said = socket.recv()
        if isinstance(said, str) and json.loads(said)["type"] == kind:
            return json.loads(said)


def realtime(url: str):
    return connect(re.sub("^http", "ws", url) + "/v1/realtime/video")


def test_a_client_that_does_not_come_back_has_its_job_stopped(url, client, monkeypatch):
    monkeypatch.setattr(sessions, "GRACE_SECONDS", 1.0)
    wire = Wire(url)
    with realtime(wire.url) as socket:
        id = send_until(socket, "video.start", type="session.start", prompt="A cat", num_frames=4000)[
            "request_id"
        ]
        wire.cut()
    with realtime(url) as socket:  # it comes back in time, so it goes on
        assert (
            send_until(socket, "video.start", type="session.resume", video_id=id, chunks=0)["request_id"]
            == id
        )
        with pytest.raises(TimeoutError):
            client.wait(id, 2.5)
        assert client.get(id)["status"] in ("queued", "in_progress")
        socket.close(1001)  # a page that is closed
    assert client.wait(id, 30)["status"] == "cancelled"


@pytest.mark.parametrize(
    ("resume", "said"),
    [
        ({"video_id": "video_0"}, "there is no video"),
        ({"chunks": 999}, "those made so far"),
        ({"chunks": -1}, "greater than or equal to 0"),
        ({"chunks": None}, "valid integer"),
    ],
)
def test_a_session_that_goes_on_wrong_is_refused(url, client, resume, said):
    with client.session("A cat", num_frames=8) as session:
        list(session)
    message = {"type": "session.resume", "video_id": session.video["id"], "chunks": 0} | resume
    with realtime(url) as socket:
        assert said in send_until(socket, "error", **message)["message"]
    with realtime(url) as socket:  # the whole of it again, of a job that has ended
        assert (
            send_until(socket, "session.done", **message | {"video_id": session.video["id"], "chunks": 0})[
                "chunks"
            ]
            == 1
        )


def test_a_video_that_was_no_session_is_not_made_one(url, video):
    with realtime(url) as socket:
        error = send_until(socket, "error", type="session.resume", video_id=video["id"], chunks=0)
    assert "not created by a session" in error["message"]


def test_a_server_that_is_gone_is_given_up(url):
    wire = Wire(url)
    with Client(wire.url, seconds=0.5) as client, client.session("A cat", num_frames=4000) as session:
        next(iter(session))
        wire.targets[:] = [("127.0.0.1", 9)]  # nobody is there
        wire.cut()
        with pytest.raises(ServerError, match="closed the session"):
            list(session)


def test_a_change_that_is_sent_twice_is_made_once(service):
    job = service.submit(Request("A cat", 4000))
    assert service.change_prompt(job.id, "A dog", "x") == service.change_prompt(job.id, "A dog", "x") == 1
    with pytest.raises(Conflict, match="another prompt"):
        service.change_prompt(job.id, "A bus", "x")
    service.cancel(job.id)
