"""Unauthorized requests, limits, and files and URLs that are not what they seem."""

from __future__ import annotations

import base64
import json
import socket
import struct
import zlib
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx2
import numpy as np
import pytest
from starlette.testclient import TestClient
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from serving import picture, served
from streamingt2v.api.app import create_app
from streamingt2v.client import Client, ServerError
from streamingt2v.video.writer import write_video

TOKEN = "a-token-of-some-length"


def bomb() -> bytes:
    """Return a PNG of 30000 x 30000 black pixels in some kilobytes."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compressobj(9)
    data = b"".join(rows.compress(bytes(3751)) for _ in range(30_000)) + rows.flush()
    head = struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", data) + part(b"IEND", b"")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": "x" * 3000}, "prompt"),
        ({"prompt": "\ud800"}, "prompt"),
        ({"prompt": "A cat", "seconds": "0.3"}, "seconds"),
        ({"prompt": "A cat", "seconds": "2", "num_frames": 17}, "num_frames"),
        ({"prompt": "A cat", "num_frames": 10**6}, "num_frames"),
        ({"prompt": "A cat", "size": "1x1"}, "size"),
        ({"prompt": "A cat", "model": "/etc"}, "model"),
        ({"prompt": "A cat", "image": "/etc/passwd"}, "image"),
        ({"prompt": "A cat", "video": "/etc/passwd"}, "video"),
        ({"prompt": "A cat", "input_reference": "/etc/passwd"}, "input_reference"),
        ({"prompt": "A cat", "input_reference": {"image_url": "file:///etc/passwd"}}, "input_reference"),
        (
            {"prompt": "A cat", "input_reference": {"image_url": "http://127.0.0.1:1/x.png"}},
            "input_reference",
        ),
        (
            {"prompt": "A cat", "input_reference": {"image_url": "data:image/png;base64,AAAA"}},
            "input_reference",
        ),
        ({"prompt": "A cat", "schedule": [[1000, "A dog"]]}, "schedule"),
    ],
)
def test_what_is_wrong_is_refused_and_named(url, fields, param):
    answer = httpx2.post(
        f"{url}/v1/videos", content=json.dumps(fields), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400
    problem = answer.json()["error"]
    assert (
        problem["param"].split(".")[0] == param
        and problem["message"]
        and problem["code"] == "invalid_request"
    )


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"[" * 100_000, b"\xff"])
def test_a_body_that_is_no_object_is_refused(url, body):
    assert httpx2.post(f"{url}/v1/videos", content=body).status_code == 400


@pytest.mark.parametrize(
    "id", ["x", "video_" + "0" * 24, "..%2F..%2Fjobs.sqlite3", "%00", "video_" + "A" * 24]
)
def test_ids_that_are_none_are_not_found(url, id):
    for path in ("", "/content", "/events", "/hls/playlist.m3u8", "/hls/init.mp4"):
        assert httpx2.get(f"{url}/v1/videos/{id}{path}").status_code == 404


@pytest.mark.parametrize(
    "name", ["request.json", "..%2Fvideo.mp4", "journal.jsonl", "%2e%2e/%2e%2e/jobs.sqlite3", "seg_99999.m4s"]
)
def test_only_segments_are_given_out(url, video, name):
    assert httpx2.get(f"{url}/v1/videos/{video['id']}/hls/{name}").status_code in (404, 409)


def test_files_are_what_they_hold(url, client, tmp_path):
    """Images and videos are recognized by content and decoded within limits; anything else is a 4xx."""
    made = write_video(tmp_path / "clip.mp4", iter([grey(i) for i in range(20)]), 16)
    assert made == 20
    clip = (tmp_path / "clip.mp4").read_bytes()
    good = {
        "passwd": picture(),
        "x.png": picture("JPEG"),
        "y.mp4": picture("WEBP"),
        "z.txt": clip,
        "i": picture("GIF"),
    }
    bad = {
        "a.png": b"no picture",
        "b.png": picture()[:60],
        "c.png": bomb(),
        "d.mp4": clip[:40],
        "e.mp4": b"\0\0\0\x20ftypisom" + bytes(1000),
        "f.m3u8": b"#EXTM3U\nhttp://127.0.0.1/x.ts\n",
        "g.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "h.png": b"",
        "j.mkv": b"\x1a\x45\xdf\xa3" + bytes(200),
        "k.mp4": clip[:-200] + bytes(200) if b"moov" in clip[-200:] else b"\0\0\0\x18ftypqt  " + clip[24:60],
    }
    ids = []
    for name, data in {**good, **bad}.items():
        answer = httpx2.post(
            f"{url}/v1/videos",
            data={"prompt": "A cat", "num_frames": "8"},
            files={"input_reference": (name, data)},
            timeout=60,
        )
        assert answer.status_code == (200 if name in good else 400), (name, answer.text)
        ids += [answer.json()["id"]] if name in good else []
    assert [client.wait(id)["status"] for id in ids] == ["completed"] * 5
    extended = client.get(ids[-2])
    assert extended["num_frames"] == 28 and any("16 frames a second" in note for note in extended["notes"])


def grey(i: int) -> np.ndarray:
    return np.full((48, 64, 3), 10 * i, np.uint8)


def test_a_data_url_is_a_picture(client):
    reference = {"image_url": "data:image/png;base64," + base64.b64encode(picture()).decode()}
    assert client.wait(client.create("A cat", num_frames=9)["id"])["status"] == "completed"
    made = client._json(
        "POST", "/v1/videos", json={"prompt": "A cat", "num_frames": 9, "input_reference": reference}
    )
    assert client.wait(made["id"])["status"] == "completed"


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("https://pictures.example/red.png", 200),
        ("https://pictures.example/moved.png", 400),
        ("https://pictures.example/large.png", 400),
        ("https://pictures.example/text.png", 400),
        ("https://PICTURES.example@evil.example/red.png", 400),
        ("https://pictures.example.evil.example/red.png", 400),
        ("http://pictures.example/red.png", 400),
        ("https://[", 400),
    ],
)
def test_only_allowed_hosts_are_asked_for_pictures(service, monkeypatch, url, status):
    asked = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(str(request.url))
        bodies = {
            "/red.png": picture(),
            "/large.png": bytes(service.limits.upload_bytes + 1),
            "/text.png": b"<html>",
        }
        moved = httpx2.Response(302, headers={"Location": "http://127.0.0.1/"})
        return (
            moved
            if request.url.path == "/moved.png"
            else httpx2.Response(200, content=bodies[request.url.path])
        )

    monkeypatch.setattr(
        httpx2, "AsyncClient", partial(httpx2.AsyncClient, transport=httpx2.MockTransport(answer))
    )
    with TestClient(
        create_app(service, allowed_hosts=frozenset({"pictures.example"})), base_url="http://localhost"
    ) as client:
        made = client.post(
            "/v1/videos", json={"prompt": "A cat", "num_frames": 9, "input_reference": {"image_url": url}}
        )
        assert made.status_code == status, made.text
        assert all(address.startswith("https://pictures.example/") for address in asked)
        if status == 200:
            assert client.delete(f"/v1/videos/{made.json()['id']}").status_code == 200


def test_uploads_leave_nothing_behind(service, client, tmp_path):
    assert list(service.files.uploads.iterdir()) == []


def test_large_bodies_are_refused_before_they_are_read(service, url):
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as plain:
        plain.sendall(
            f"POST /v1/videos HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {10**12}\r\n\r\n".encode()
        )
        assert b" 413 " in plain.recv(100)

    with socket.create_connection((host, int(port))) as plain:  # no length is said
        plain.sendall(
            f"POST /v1/videos HTTP/1.1\r\nHost: {host}:{port}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )
        piece = f"{2**20:x}\r\n".encode() + bytes(2**20) + b"\r\n"
        with suppress(OSError):  # the server may close while more is sent
            for _ in range(service.limits.upload_bytes // 2**20 + 2):
                plain.sendall(piece)
        assert b" 413 " in plain.recv(100)


def test_a_token_is_asked_for_everywhere_but_where_nothing_is(service, video):
    with served(service, TOKEN) as url:
        paths = (
            f"/v1/videos/{video['id']}",
            "/v1/videos",
            f"/v1/videos/{video['id']}/content",
            "/metrics",
            "/openapi.json",
            "/v1/models",
        )
        for path in paths:
            assert httpx2.get(url + path).status_code == 401
            assert httpx2.get(url + path, headers={"Authorization": f"Bearer {TOKEN}x"}).status_code == 401
            assert httpx2.get(url + path, headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
        for path in ("/health", "/ready", "/static/hls.light.min.js", "/watch/x"):
            assert httpx2.get(url + path).status_code == 200
        with pytest.raises(InvalidStatus), connect(url.replace("http", "ws") + "/v1/realtime/video"):
            pass
        with Client(url, TOKEN) as client, client.session("A cat", num_frames=8) as session:
            assert sum(piece.about["num_frames"] for piece in session) == 8


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "localhost:80"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Host": "[", "Origin": "http://["}, 403),
    ],
)
def test_without_a_token_pages_from_elsewhere_are_kept_out(url, headers, status):
    assert httpx2.get(f"{url}/v1/videos", headers=headers).status_code == status
    if "Host" not in headers:
        with (
            pytest.raises(InvalidStatus),
            connect(url.replace("http", "ws") + "/v1/realtime/video", additional_headers=headers),
        ):
            pass


def test_no_more_streams_and_sessions_than_allowed(service):
    before = service.limits
    service.limits = replace(before, sessions=1, streams=1)
    try:
        with served(service) as url, Client(url) as client:
            first = client.create("A cat", num_frames=4000)["id"]
            events = client.events(first)
            next(events)
            with Client(url) as other, pytest.raises(ServerError) as refused:
                next(other.events(first))
            assert refused.value.status == 429
            client.delete(first)
            with client.session("A cat", num_frames=4000):
                second = client.session("A dog")
                with pytest.raises(ServerError, match="sessions are open"), second:
                    pass
    finally:
        service.limits = before


def test_what_goes_wrong_inside_says_nothing_of_this_machine(service, monkeypatch):
    def broken(*arguments):
        raise RuntimeError(f"secret {Path.cwd()}")

    monkeypatch.setattr(service.store, "list", broken)
    with TestClient(
        create_app(service), base_url="http://localhost", raise_server_exceptions=False
    ) as client:
        answer = client.get("/v1/videos")
    assert (
        answer.status_code == 500
        and "secret" not in answer.text
        and answer.json()["error"]["code"] == "internal_error"
    )
