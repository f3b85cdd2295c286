"""Attacks on the time and memory of the server: slow and silent connections, full disks, bursts."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from urllib.parse import urlsplit

import httpx2
import psutil
import pytest
from starlette.testclient import TestClient

from serving import dialled, picture, served
from streamingt2v.api import connections, doors
from streamingt2v.api.app import create_app
from streamingt2v.client import Client, ServerError
from streamingt2v.jobs.database import CONNECTIONS
from streamingt2v.jobs.job import STATUSES


def test_heads_and_bodies_have_their_time(service, monkeypatch):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.5)
    monkeypatch.setattr(doors, "BODY_SECONDS", 0.5)
    with served(service) as url:
        request = f"GET /health HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\n\r\n".encode()
        starts = {
            "nothing": b"",
            "a line": b"GET /health HTTP/1.1\r\nHo",
            "an answered one and a line": request + b"GET /he",
        }
        for start in starts.values():
            with closing(dialled(url)) as plain:
                plain.sendall(start)
                while plain.recv(4096):
                    pass
        with closing(dialled(url)) as plain:  # which sends a byte now and then
            plain.sendall(
                request.replace(b"GET /health", b"POST /v1/videos").replace(
                    b"\r\n\r\n", b"\r\nContent-Length: 900\r\n\r\n"
                )
            )
            threading.Timer(0.3, plain.sendall, [b"x"]).start()
            assert plain.recv(100).split()[1] == b"408"
        began = time.monotonic()
        with httpx2.stream("GET", f"{url}/health") as answer:
            assert answer.status_code == 200 and time.monotonic() - began < 5


def test_a_head_has_an_end(url):
    with closing(dialled(url)) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n")
        with pytest.raises(OSError):  # reset or broken, as it comes
            for _ in range(10_000):
                plain.sendall(b"X-A: " + b"a" * 1000 + b"\r\n")


def test_connections_that_say_nothing_give_way_to_those_that_ask(service, monkeypatch):
    monkeypatch.setattr(connections.Connection, "most", 20)
    with served(service) as url:
        silent = [dialled(url) for _ in range(60)]
        assert httpx2.get(f"{url}/health").status_code == 200
        assert sum(not alive(plain) for plain in silent) >= 40
        for plain in silent:
            plain.close()


def alive(plain: socket.socket) -> bool:
    plain.settimeout(0.01)
    try:
        return plain.recv(1) != b""
    except TimeoutError:
        return True
    except OSError:
        return False


def test_head_is_get_without_a_body(service, url, client, video):
    running = client.create("A cat", num_frames=4000)["id"]
    try:
        for path in ("", "?limit=1"):
            assert httpx2.head(f"{url}/v1/videos{path}").status_code == 200
        for path in (
            "",
            "/content",
            "/content?variant=thumbnail",
            "/hls/playlist.m3u8",
            "/hls/init.mp4",
            "/events",
        ):
            there = httpx2.head(f"{url}/v1/videos/{video['id']}{path}")
            assert there.status_code == 200 and there.content == b"", path
            with httpx2.stream("GET", f"{url}/v1/videos/{video['id']}{path}") as got:
                assert there.headers.get("content-length") == got.headers.get("content-length")
                assert there.headers["content-type"] == got.headers["content-type"]
        for path in ("/events", "/content"):  # of one that goes on for long
            assert httpx2.head(f"{url}/v1/videos/{running}{path}", timeout=5).status_code == 200
        assert httpx2.head(f"{url}/v1/videos/video_{'0' * 24}").status_code == 404
        assert "HEAD" in httpx2.post(f"{url}/v1/videos/{video['id']}").headers["allow"]
    finally:
        client.delete(running)


def test_many_that_ask_for_one_still_leave_room_for_others(service, url, video, monkeypatch):
    drawn = threading.Event()

    def slowly(job):
        drawn.wait(20)
        return service.files.finished(job.id)

    monkeypatch.setattr(service.files, "spritesheet", slowly)
    address = f"{url}/v1/videos/{video['id']}/content?variant=spritesheet"
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda: answers.append(httpx2.get(address, timeout=30).status_code))
        for _ in range(45)
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    began = time.monotonic()
    made = httpx2.post(f"{url}/v1/videos", json={"prompt": "A cat", "num_frames": 8}, timeout=30)
    seconds = time.monotonic() - began
    drawn.set()
    for thread in threads:
        thread.join()
    service.delete(made.json()["id"])
    assert made.status_code == 200 and seconds < 3 and answers == [200] * 45


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_no_room_is_a_507_whatever_is_written(service, monkeypatch, code, tmp_path):
    def full(*arguments, **named):
        raise OSError(code, "No room", str(service.settings.folder / "secret"))

    with TestClient(
        create_app(service), base_url="http://localhost", raise_server_exceptions=False
    ) as client:
        for owner, name in ((service.store, "begin"), (service.files, "take_in")):
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, full)
                answer = client.post(
                    "/v1/videos", data={"prompt": "A cat"}, files={"input_reference": ("x.png", picture())}
                )
                assert (
                    answer.status_code == 507
                    and "secret" not in answer.text
                    and answer.json()["error"]["code"] == "storage_full"
                )
    assert not list(service.files.uploads.iterdir())


def test_errors_name_no_folder_of_this_machine(service, url):
    answer = httpx2.post(
        f"{url}/v1/videos",
        data={"prompt": "A cat"},
        files={"input_reference": ("x.mp4", b"\0\0\0\x20ftypisom" + bytes(500))},
    )
    assert (
        answer.status_code == 400
        and str(service.settings.folder) not in answer.text
        and "/tmp" not in answer.text
    )


@pytest.mark.parametrize(
    "name",
    [
        "seed",
        "negative_prompt",
        "schedule",
        "seconds",
        "num_frames",
        "model",
        "size",
        "input_reference",
        "preset",
        "num_inference_steps",
        "guidance_scale",
        "fps",
        "width",
        "height",
        "form",
        "strength",
    ],
)
def test_null_is_what_is_left_out(service, url, name):
    made = httpx2.post(
        f"{url}/v1/videos",
        json={"prompt": "A cat", "num_frames": None if name == "num_frames" else 8, name: None},
    )
    assert made.status_code == 200, made.text
    service.delete(made.json()["id"])
    assert made.json()["seed"] == 33 and made.json()["status"] in STATUSES


@pytest.mark.parametrize(
    ("seconds", "status"),
    [(2, 200), (2.0, 200), ("2", 200), (0.5, 200), (True, 400), (1e-7, 400), (-1, 400), ([], 400)],
)
def test_seconds_are_a_number_or_a_string(service, url, seconds, status):
    made = httpx2.post(f"{url}/v1/videos", json={"prompt": "A cat", "seconds": seconds})
    assert made.status_code == status, made.text
    if status == 200:
        service.delete(made.json()["id"])
        assert made.json()["num_frames"] == 8 * float(seconds)


def test_a_download_that_fails_leaves_the_file_that_was_there(service, client, url, video, tmp_path):
    path = tmp_path / "video.mp4"
    path.write_bytes(b"dear")
    running = client.create("A cat", num_frames=4000)["id"]
    waiting = client.create("A cat", num_frames=8)["id"]
    client.cancel(waiting)
    client.delete(running)
    for id, variant in (
        (waiting, "video"),
        (waiting, "spritesheet"),
        (waiting, "thumbnail"),
        (f"video_{'0' * 24}", "video"),
    ):
        with pytest.raises(ServerError):
            client.download(id, path, variant)
        assert path.read_bytes() == b"dear" and list(tmp_path.iterdir()) == [path]
    whole = service.files.finished(video["id"]).read_bytes()
    with (
        broken_off(url, after=len(whole) // 2) as address,
        Client(address) as other,
        pytest.raises(httpx2.TransportError),
    ):
        other.download(video["id"], path)
    assert path.read_bytes() == b"dear" and list(tmp_path.iterdir()) == [path]
    assert client.download(video["id"], path).read_bytes() == whole


@contextmanager
def broken_off(url: str, after: int) -> Iterator[str]:
    """Yield an address that forwards to another one and cuts off long responses."""

    def serve() -> None:
        while True:
            try:
                here, _ = listener.accept()
            except OSError:
                return
            with here, dialled(url) as there:
                there.sendall(
                    here.recv(65536)
                    .replace(here_name, urlsplit(url).netloc.encode())
                    .replace(b"keep-alive", b"close")
                )
                sent = 0
                while (data := there.recv(256)) and sent < after:
                    here.sendall(data)
                    sent += len(data)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        here_name = f"127.0.0.1:{listener.getsockname()[1]}".encode()
        threading.Thread(target=serve, daemon=True).start()
        yield f"http://{here_name.decode()}"


def test_bursts_of_videos_that_are_soon_deleted_leave_nothing(service, url):
    """A small version of lab/benchmarks/leaks.py."""

    def life() -> None:
        with httpx2.Client(base_url=url, timeout=60) as http:
            id = http.post("/v1/videos", json={"prompt": "A cat", "num_frames": 24}).json()["id"]
            answers.extend(
                (
                    http.post(f"/v1/videos/{id}/cancel").status_code,
                    http.delete(f"/v1/videos/{id}").status_code,
                )
            )

    here, answers, counts = psutil.Process(), [], []
    for _ in range(2):
        threads = [threading.Thread(target=life) for _ in range(30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        deadline = time.monotonic() + 60
        while service.store.deleted() and time.monotonic() < deadline:
            time.sleep(0.05)
        counts.append(sum(file.path.startswith(str(service.files.database)) for file in here.open_files()))
    assert set(answers) == {200} and len(answers) == 120 and max(counts) <= 3 * CONNECTIONS
    assert {path.name for path in (service.files.folder / "jobs").iterdir()} <= service.store.ids()
