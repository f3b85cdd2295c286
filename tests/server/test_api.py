"""The HTTP API on a real port with a real worker: the shared shape, watching, and what is kept out."""

from __future__ import annotations

import base64
import io
import json
import re
import socket
import struct
import threading
import time
import zlib
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx2
import numpy as np
import openai
import pytest
from PIL import Image
from starlette.testclient import TestClient
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from serving import served
from streamingt2v.client import Client, ServerError
from streamingt2v.io.reader import count_frames
from streamingt2v.io.writer import write_video
from streamingt2v.server.app import STATIC, create_app

TOKEN = "a-token-of-some-length"


@pytest.fixture(scope="module")
def client(url):
    with Client(url) as client:
        yield client


@pytest.fixture(scope="module")
def video(client) -> dict:
    """A finished one."""
    return client.wait(client.create("A cat running on the street", num_frames=24)["id"])


@pytest.fixture
def endless(client):
    """One in the making, with some frames."""
    made = client.create("A cat running on the street", num_frames=4000)
    while client.get(made["id"])["frames_done"] < 24:
        time.sleep(0.02)
    yield made["id"]
    client.delete(made["id"])


def picture(kind: str = "PNG", size: tuple[int, int] = (40, 60)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, "red").save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")
def test_the_openai_client(url, tmp_path):
    """Create, poll, download, list, image reference, remix, extend, delete."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as api:
        made = api.videos.create(prompt="A cat", model="toy", seconds="2", size="32x32")
        assert (made.object, made.status, made.seconds, made.size, made.model) == ("video", "queued", "2", "32x32", "toy")
        done = api.videos.poll(made.id)
        assert (done.status, done.progress) == ("completed", 100) and done.completed_at >= done.created_at
        path = tmp_path / "video.mp4"
        api.videos.download_content(made.id).write_to_file(path)
        assert count_frames(path) == 16
        for variant, kind in (("thumbnail", "WEBP"), ("spritesheet", "JPEG")):
            assert Image.open(io.BytesIO(api.videos.download_content(made.id, variant=variant).read())).format == kind
        red = api.videos.create_and_poll(prompt="A cat", seconds="1", input_reference=("red.png", picture()), poll_interval_ms=100)
        still = Image.open(io.BytesIO(api.videos.download_content(red.id, variant="thumbnail").read())).resize((1, 1)).getpixel((0, 0))
        assert still[0] > 200 and max(still[1:3]) < 60
        remix = api.videos.remix(made.id, prompt="A dog")
        assert (remix.remixed_from_video_id, remix.prompt, remix.seconds) == (made.id, "A dog", "2")
        longer = api.videos.poll(api.videos.extend(video=path, prompt="A dog", seconds="1").id, poll_interval_ms=100)
        assert longer.seconds == "3"
        assert {made.id, red.id, remix.id, longer.id} <= {video.id for video in api.videos.list(limit=2)}, "over several pages"
        gone = api.videos.delete(made.id)
        assert (gone.deleted, gone.object) == (True, "video.deleted")
        with pytest.raises(openai.NotFoundError):
            api.videos.retrieve(made.id)
        with pytest.raises(openai.BadRequestError, match="64x64"):
            api.videos.create(prompt="A cat", size="1280x720")


def test_a_file_in_parts_and_its_stills(url, video):
    address = f"{url}/v1/videos/{video['id']}/content"
    whole = httpx2.get(address)
    assert whole.status_code == 200 and whole.headers["content-type"] == "video/mp4"
    part = httpx2.get(address, headers={"Range": "bytes=100-199"})
    assert part.status_code == 206 and part.content == whole.content[100:200]
    assert httpx2.get(address, headers={"Range": f"bytes={len(whole.content)}-"}).status_code == 416


def test_watching_while_it_is_made(url, client, endless, tmp_path):
    """Playlist, segments and the growing file play before there is a finished one."""
    base = f"{url}/v1/videos/{endless}"
    playlist = httpx2.get(f"{base}/hls/playlist.m3u8")
    assert playlist.headers["content-type"].startswith("application/vnd.apple.mpegurl") and "ENDLIST" not in playlist.text
    names = [re.search('URI="(.+)"', playlist.text).group(1), *re.findall(r"^seg_.+$", playlist.text, re.MULTILINE)]
    (tmp_path / "hls.mp4").write_bytes(b"".join(httpx2.get(f"{base}/hls/{name}").content for name in names))
    assert count_frames(tmp_path / "hls.mp4") >= 24
    assert Image.open(io.BytesIO(httpx2.get(f"{base}/content?variant=thumbnail").content)).size == (32, 32)
    assert httpx2.get(f"{base}/content?variant=spritesheet").status_code == 409
    pieces = client.stream(endless)
    (tmp_path / "growing.mp4").write_bytes(b"".join(next(pieces) for _ in range(4)))
    assert count_frames(tmp_path / "growing.mp4") >= 24
    client.cancel(endless)
    (tmp_path / "growing.mp4").open("ab").write(b"".join(pieces))
    assert client.wait(endless)["status"] == "cancelled"
    assert "#EXT-X-ENDLIST" in httpx2.get(f"{base}/hls/playlist.m3u8").text
    assert count_frames(client.download(endless, tmp_path / "kept.mp4")) >= 24


def test_a_playlist_waits_for_the_first_frames(url, client):
    made = client.create("A cat", num_frames=16)
    assert "seg_00000" in httpx2.get(f"{url}/v1/videos/{made['id']}/hls/playlist.m3u8", timeout=30).text


def test_events_tell_of_every_change_and_end(client):
    seen = list(client.events(client.create("A cat", num_frames=40)["id"]))
    assert seen[-1]["status"] == "completed"
    assert [event["frames_done"] for event in seen] == sorted(event["frames_done"] for event in seen)
    assert len({event["frames_done"] for event in seen}) > 2


def test_a_session_changes_its_prompt_with_the_next_chunk(client):
    with client.session("A cat", num_frames=4000) as session:
        seen = []
        for piece in session:
            seen.append(piece.about)
            assert len(piece.data) == piece.about["byte_length"]
            if len(seen) == 2:
                session.change_prompt("A dog", "first")
            if len(seen) > 2 and seen[-1]["started_event_ids"]:
                session.stop()
        started = [about["started_event_ids"] for about in seen if about["started_event_ids"]]
        assert started == [["first"]] and session.done["stopped"] and session.done["status"] == "cancelled"
        assert [about["transport_chunk_index"] for about in seen] == list(range(session.done["chunks"]))
    assert client.get(session.video["id"])["frames_done"] == sum(about["num_frames"] for about in seen)


def test_a_session_ends_its_job_when_the_client_goes(url, client):
    with connect(url.replace("http", "ws") + "/v1/realtime/video") as socket:
        socket.send(json.dumps({"type": "session.start", "prompt": "A cat", "num_frames": 4000}))
        id = json.loads(socket.recv())["request_id"]
        socket.send(json.dumps({"type": "session.ping"}))
        socket.send("rubbish")
        socket.send(json.dumps({"type": "session.interaction", "interaction": {"event": {"prompt": ""}}}))
        said = []
        while len(said) < 3:
            message = socket.recv()
            if isinstance(message, str) and json.loads(message)["type"] != "video.chunk_metadata":
                said.append(json.loads(message)["type"])
        assert said == ["session.pong", "error", "error"]
    assert client.wait(id, 30)["status"] == "cancelled"


@pytest.mark.parametrize(
    "first",
    ["rubbish", "[]", '{"type": "session.start"}', '{"type": "session.start", "prompt": "A", "format": "raw"}', '{"type": "session.stop"}'],
)
def test_a_session_that_begins_wrong_is_refused(url, first):
    with connect(url.replace("http", "ws") + "/v1/realtime/video") as socket:
        socket.send(first)
        assert json.loads(socket.recv())["type"] == "error"


def test_the_prompt_changes_over_http(client, endless):
    assert client.change_prompt(endless, "A dog")["number"] == 1
    with pytest.raises(ServerError, match="prompt"):
        client.change_prompt(endless, " ")


def test_the_same_key_is_the_same_video(client):
    first = client.create("A cat", num_frames=8, key="twice")
    assert client.create("A cat", num_frames=8, key="twice")["id"] == first["id"]
    with pytest.raises(ServerError) as refused:
        client.create("A dog", num_frames=8, key="twice")
    assert refused.value.status == 409


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": "x" * 3000}, "prompt"),
        ({"prompt": "\ud800"}, "prompt"),
        ({"prompt": "A cat", "seconds": "0.3"}, "seconds"),
        ({"prompt": "A cat", "seconds": "2", "num_frames": 17}, "num_frames"),
        ({"prompt": "A cat", "num_frames": 10**6}, "frames"),
        ({"prompt": "A cat", "size": "1x1"}, "size"),
        ({"prompt": "A cat", "model": "/etc"}, "model"),
        ({"prompt": "A cat", "image": "/etc/passwd"}, "image"),
        ({"prompt": "A cat", "video": "/etc/passwd"}, "video"),
        ({"prompt": "A cat", "input_reference": "/etc/passwd"}, "input_reference"),
        ({"prompt": "A cat", "input_reference": {"image_url": "file:///etc/passwd"}}, "input_reference"),
        ({"prompt": "A cat", "input_reference": {"image_url": "http://127.0.0.1:1/x.png"}}, "input_reference"),
        ({"prompt": "A cat", "input_reference": {"image_url": "data:image/png;base64,AAAA"}}, "input_reference"),
        ({"prompt": "A cat", "schedule": [[1000, "A dog"]]}, "schedule"),
    ],
)
def test_what_is_wrong_is_refused_and_named(url, fields, param):
    answer = httpx2.post(f"{url}/v1/videos", content=json.dumps(fields), headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    problem = answer.json()["error"]
    assert problem["param"].split(".")[0] == param and problem["message"] and problem["code"] == "invalid_request"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"[" * 100_000, b"\xff"])
def test_a_body_that_is_no_object_is_refused(url, body):
    assert httpx2.post(f"{url}/v1/videos", content=body).status_code == 400


@pytest.mark.parametrize("id", ["x", "video_" + "0" * 24, "..%2F..%2Fjobs.sqlite3", "%00", "video_" + "A" * 24])
def test_ids_that_are_none_are_not_found(url, id):
    for path in ("", "/content", "/events", "/hls/playlist.m3u8", "/hls/init.mp4"):
        assert httpx2.get(f"{url}/v1/videos/{id}{path}").status_code == 404


@pytest.mark.parametrize("name", ["request.json", "..%2Fvideo.mp4", "journal.jsonl", "%2e%2e/%2e%2e/jobs.sqlite3", "seg_99999.m4s"])
def test_only_segments_are_given_out(url, video, name):
    assert httpx2.get(f"{url}/v1/videos/{video['id']}/hls/{name}").status_code in (404, 409)


def bomb() -> bytes:
    """A PNG of 30000 x 30000 black pixels in some kilobytes."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compressobj(9)
    data = b"".join(rows.compress(bytes(3751)) for _ in range(30_000)) + rows.flush()
    head = struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", data) + part(b"IEND", b"")


def test_files_are_what_they_hold(url, client, tmp_path):
    """Whatever a file is called: pictures and videos that can be read to their end, within limits; the rest ends in a 4xx."""
    made = write_video(tmp_path / "clip.mp4", iter([grey(i) for i in range(20)]), 8)
    assert made == 20
    clip = (tmp_path / "clip.mp4").read_bytes()
    good = {"passwd": picture(), "x.png": picture("JPEG"), "y.mp4": picture("WEBP"), "z.txt": clip}
    bad = {
        "a.png": b"no picture",
        "b.png": picture()[:60],
        "c.png": bomb(),
        "d.mp4": clip[:40],
        "e.mp4": b"\0\0\0\x20ftypisom" + bytes(1000),
        "f.m3u8": b"#EXTM3U\nhttp://127.0.0.1/x.ts\n",
        "g.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "h.png": b"",
        "i.gif": picture("GIF"),
        "j.mkv": b"\x1a\x45\xdf\xa3" + bytes(200),
        "k.mp4": clip[:-200] + bytes(200) if b"moov" in clip[-200:] else b"\0\0\0\x18ftypqt  " + clip[24:60],
    }
    ids = []
    for name, data in {**good, **bad}.items():
        answer = httpx2.post(
            f"{url}/v1/videos", data={"prompt": "A cat", "num_frames": "8"}, files={"input_reference": (name, data)}, timeout=60
        )
        assert answer.status_code == (200 if name in good else 400), (name, answer.text)
        ids += [answer.json()["id"]] if name in good else []
    assert [client.wait(id)["status"] for id in ids] == ["completed"] * 4
    assert client.get(ids[-1])["num_frames"] == 28, "a video is gone on with"


def grey(i: int) -> np.ndarray:
    return np.full((48, 64, 3), 10 * i, np.uint8)


def test_a_data_url_is_a_picture(client):
    reference = {"image_url": "data:image/png;base64," + base64.b64encode(picture()).decode()}
    assert client.wait(client.create("A cat", num_frames=9)["id"])["status"] == "completed"
    made = client._json("POST", "/v1/videos", json={"prompt": "A cat", "num_frames": 9, "input_reference": reference})
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
        bodies = {"/red.png": picture(), "/large.png": bytes(service.limits.upload_bytes + 1), "/text.png": b"<html>"}
        moved = httpx2.Response(302, headers={"Location": "http://127.0.0.1/"})
        return moved if request.url.path == "/moved.png" else httpx2.Response(200, content=bodies[request.url.path])

    monkeypatch.setattr(httpx2, "AsyncClient", partial(httpx2.AsyncClient, transport=httpx2.MockTransport(answer)))
    with TestClient(create_app(service, allowed_hosts=frozenset({"pictures.example"})), base_url="http://localhost") as client:
        made = client.post("/v1/videos", json={"prompt": "A cat", "num_frames": 9, "input_reference": {"image_url": url}})
        assert made.status_code == status, made.text
        assert all(address.startswith("https://pictures.example/") for address in asked)
        if status == 200:
            assert client.delete(f"/v1/videos/{made.json()['id']}").status_code == 200


def test_uploads_leave_nothing_behind(service, client, tmp_path):
    assert list(service.files.uploads.iterdir()) == []


def test_large_bodies_are_refused_before_they_are_read(service, url):
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as plain:
        plain.sendall(f"POST /v1/videos HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {10**12}\r\n\r\n".encode())
        assert b" 413 " in plain.recv(100)

    with socket.create_connection((host, int(port))) as plain:  # no length is said
        plain.sendall(f"POST /v1/videos HTTP/1.1\r\nHost: {host}:{port}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        piece = f"{2**20:x}\r\n".encode() + bytes(2**20) + b"\r\n"
        with suppress(OSError):  # the server may close while more is sent
            for _ in range(service.limits.upload_bytes // 2**20 + 2):
                plain.sendall(piece)
        assert b" 413 " in plain.recv(100)


def test_a_token_is_asked_for_everywhere_but_where_nothing_is(service, video):
    with served(service, TOKEN) as url:
        paths = (f"/v1/videos/{video['id']}", "/v1/videos", f"/v1/videos/{video['id']}/content", "/metrics", "/openapi.json", "/v1/models")
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
        with pytest.raises(InvalidStatus), connect(url.replace("http", "ws") + "/v1/realtime/video", additional_headers=headers):
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


def test_alive_ready_and_figures(url, client, video):
    assert httpx2.get(f"{url}/health").json()["status"] == "ok"
    assert httpx2.get(f"{url}/ready").status_code == 200
    figures = dict(re.findall(r"^(streamingt2v_\w+(?:\{.*\})?) ([\d.e+]+)$", httpx2.get(f"{url}/metrics").text, re.MULTILINE))
    assert float(figures["streamingt2v_frames_total"]) >= 24 and figures["streamingt2v_ready"] == "1.0"
    assert float(figures['streamingt2v_jobs_ended_total{status="completed"}']) >= 1
    assert any('route="/v1/videos/{video_id}"' in name for name in figures)


def test_the_document_is_complete(url):
    """Every route and field is told about, and every reference leads somewhere."""
    document = httpx2.get(f"{url}/openapi.json").json()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"] and operation["description"], (path, method)
            if method == "post" and "prompt" in str(operation.get("requestBody")):
                assert "application/json" in operation["requestBody"]["content"]
    for reference in re.findall(r"#/components/schemas/(\w+)", json.dumps(document)):
        assert reference in document["components"]["schemas"]
    assert document["components"]["schemas"]["VideoCreate"]["examples"]


def test_the_page_and_its_parts(url):
    page = httpx2.get(f"{url}/watch/video_x")
    assert "script-src" not in page.headers["content-security-policy"] and "default-src 'self'" in page.headers["content-security-policy"]
    for part in re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text):
        assert httpx2.get(url + part).status_code == 200
    assert "Apache" in (STATIC / "hls.light.min.js.LICENSE").read_text()
    assert "<script>" not in page.text and "onclick" not in page.text


def test_what_goes_wrong_inside_says_nothing_of_this_machine(service, monkeypatch):
    def broken(*arguments):
        raise RuntimeError(f"secret {Path.cwd()}")

    monkeypatch.setattr(service.store, "list", broken)
    with TestClient(create_app(service), base_url="http://localhost", raise_server_exceptions=False) as client:
        answer = client.get("/v1/videos")
    assert answer.status_code == 500 and "secret" not in answer.text and answer.json()["error"]["code"] == "internal_error"


def test_many_clients_at_once_get_one_job_each(url):
    ids: list[str] = []

    def make(seed: int) -> None:
        with Client(url) as client:
            ids.append(client.create("A cat", num_frames=8, seed=seed)["id"])

    threads = [threading.Thread(target=make, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 12
    with Client(url) as client:
        for id in ids:
            client.delete(id)
