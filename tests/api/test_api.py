"""The HTTP API on a real port with a real worker: the shared fields, delivery and sessions."""

from __future__ import annotations

import io
import json
import re
import threading
import time

import httpx2
import pytest
from PIL import Image
from websockets.sync.client import connect

from serving import picture
from streamingt2v.api.app import STATIC
from streamingt2v.client import Client, ServerError
from streamingt2v.video.reader import count_frames

TOKEN = "a-token-of-some-length"


@pytest.fixture
def endless(client):
    """Yield the id of a job in progress, with some frames."""
    made = client.create("A cat running on the street", num_frames=4000)
    while client.get(made["id"])["frames_done"] < 24:
        time.sleep(0.02)
    yield made["id"]
    client.delete(made["id"])


@pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")
def test_the_openai_client(url, tmp_path):
    """Create, poll, download, list, image reference, remix, extend, delete."""
    import openai  # takes a second, of every process of a test run if it stood above

    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as api:
        made = api.videos.create(prompt="A cat", model="toy", seconds="2", size="32x32")
        assert (made.object, made.status, made.seconds, made.size, made.model) == (
            "video",
            "queued",
            "2",
            "32x32",
            "toy",
        )
        done = api.videos.poll(made.id)
        assert (done.status, done.progress) == ("completed", 100) and done.completed_at >= done.created_at
        path = tmp_path / "video.mp4"
        api.videos.download_content(made.id).write_to_file(path)
        assert count_frames(path) == 16
        for variant, kind in (("thumbnail", "WEBP"), ("spritesheet", "JPEG")):
            assert (
                Image.open(io.BytesIO(api.videos.download_content(made.id, variant=variant).read())).format
                == kind
            )
        red = api.videos.create_and_poll(
            prompt="A cat", seconds="1", input_reference=("red.png", picture()), poll_interval_ms=100
        )
        still = (
            Image.open(io.BytesIO(api.videos.download_content(red.id, variant="thumbnail").read()))
            .resize((1, 1))
            .getpixel((0, 0))
        )
        assert still[0] > 200 and max(still[1:3]) < 60
        remix = api.videos.remix(made.id, prompt="A dog")
        assert (remix.remixed_from_video_id, remix.prompt, remix.seconds) == (made.id, "A dog", "2")
        longer = api.videos.poll(
            api.videos.extend(video=path, prompt="A dog", seconds="1").id, poll_interval_ms=100
        )
        assert longer.seconds == "3"
        assert {made.id, red.id, remix.id, longer.id} <= {video.id for video in api.videos.list(limit=2)}, (
            "over several pages"
        )
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
    """Playlist, segments and the growing file play before the video is finished."""
    base = f"{url}/v1/videos/{endless}"
    playlist = httpx2.get(f"{base}/hls/playlist.m3u8")
    assert (
        playlist.headers["content-type"].startswith("application/vnd.apple.mpegurl")
        and "ENDLIST" not in playlist.text
    )
    names = [
        re.search('URI="(.+)"', playlist.text).group(1),
        *re.findall(r"^seg_.+$", playlist.text, re.MULTILINE),
    ]
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
    seen = list(client.events(client.create("A cat", num_frames=160)["id"]))
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
    [
        "rubbish",
        "[]",
        '{"type": "session.start"}',
        '{"type": "session.start", "prompt": "A", "format": "raw"}',
        '{"type": "session.stop"}',
    ],
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


def test_alive_ready_and_figures(url, client, video):
    assert httpx2.get(f"{url}/health").json()["status"] == "ok"
    assert httpx2.get(f"{url}/ready").status_code == 200
    figures = dict(
        re.findall(
            r"^(streamingt2v_\w+(?:\{.*\})?) ([\d.e+]+)$", httpx2.get(f"{url}/metrics").text, re.MULTILINE
        )
    )
    assert float(figures["streamingt2v_frames_total"]) >= 24 and figures["streamingt2v_ready"] == "1.0"
    assert float(figures['streamingt2v_jobs_ended_total{status="completed"}']) >= 1
    assert any('route="/v1/videos/{video_id}"' in name for name in figures)


def test_the_document_is_complete(url):
    """Every route is described, and every reference resolves."""
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
    assert (
        "script-src" not in page.headers["content-security-policy"]
        and "default-src 'self'" in page.headers["content-security-policy"]
    )
    for part in re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text):
        assert httpx2.get(url + part).status_code == 200
    assert "Apache" in (STATIC / "hls.light.min.js.LICENSE").read_text()
    assert "<script>" not in page.text and "onclick" not in page.text


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
