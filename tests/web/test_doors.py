"""Security of the demo's routes: none reads a file or fetches an address that a client names."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient

from serving import picture
from streamingt2v.jobs.service import JobService
from streamingt2v.jobs.settings import Settings
from streamingt2v.web.app import create_demo
from streamingt2v.web.door import COOKIE

TOKEN = "a-token-of-some-length"
ROUTES = {
    "GET /",
    "GET /health",
    "GET /metrics",
    "GET /openapi.json",
    "GET /page/settings.json",
    "GET /page/videos/{video_id}/closer.json",
    "GET /page/videos/{video_id}/events",
    "GET /page/videos/{video_id}/image",
    "GET /page/videos/{video_id}/settings.json",
    "GET /page/videos/{video_id}/slice.png",
    "GET /page/words.json",
    "GET /ready",
    "GET /v1/models",
    "GET /v1/videos",
    "GET /v1/videos/{video_id}",
    "GET /v1/videos/{video_id}/content",
    "GET /v1/videos/{video_id}/events",
    "GET /v1/videos/{video_id}/hls/playlist.m3u8",
    "GET /v1/videos/{video_id}/hls/{name}",
    "GET /watch/{video_id}",
    "POST /page/look",
    "POST /v1/videos",
    "POST /v1/videos/extensions",
    "POST /v1/videos/{video_id}/cancel",
    "POST /v1/videos/{video_id}/prompt",
    "POST /v1/videos/{video_id}/refine",
    "POST /v1/videos/{video_id}/remix",
    "DELETE /v1/videos/{video_id}",
    "WS /v1/realtime/video",
    "MOUNT /page/static",
    "MOUNT /static",
}
"""All routes. A new route must be added here, and is then covered by the tests below."""

FIELDS = ("file", "image", "video", "input_reference", "model", "path", "data", "refine")


def routes_of(app) -> set[str]:
    found = set()
    for route in getattr(app, "routes", ()):
        if isinstance(route, Mount):
            found.add(f"MOUNT {route.path}")
        elif isinstance(route, WebSocketRoute):
            found.add(f"WS {route.path}")
        elif isinstance(route, Route):
            found |= {f"{method} {route.path}" for method in route.methods - {"HEAD"}}
        else:
            found |= routes_of(getattr(route, "original_router", None) or getattr(route, "router", None))
    return found


@pytest.fixture(scope="module")
def jobs(toy, tmp_path_factory):
    """Yield a service without workers: no job is started."""
    service = JobService(Settings(tmp_path_factory.mktemp("jobs"), (str(toy),)))
    yield service
    service.store.close()


@pytest.fixture(scope="module")
def demo(jobs):
    with TestClient(create_demo(jobs), base_url="http://localhost", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def secret(tmp_path_factory):
    """Return the path of an image on the server that no client may read."""
    path = tmp_path_factory.mktemp("secret") / "secret.png"
    path.write_bytes(picture(size=(33, 57)))
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def trap():
    """Yield (address, list of fetches)."""
    hits = []

    class Trap(BaseHTTPRequestHandler):
        def do_GET(self):
            hits.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(picture())

        do_HEAD = do_POST = do_GET

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Trap)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/x.png", hits
    server.shutdown()
    server.server_close()


META = {"_type": "gradio.FileData"}


def forms(place: str) -> list:
    """Return a path or address in the JSON shapes that clients of such pages send."""
    objects = [
        {"path": place},
        {"path": place, "meta": META},
        {"url": place, "meta": META},
        {"image_url": place},
        {"id": place},
    ]
    return [place, [place], *objects]


def test_the_list_of_routes_is_whole(jobs):
    app = create_demo(jobs)
    assert routes_of(app._app) == ROUTES


def test_no_route_takes_a_path_or_an_address(demo, jobs, secret, trap):
    address, hits = trap
    link = jobs.files.uploads / "link.png"
    link.symlink_to(secret)
    data, known = secret.read_bytes(), demo.post("/v1/videos", json={"prompt": "A cat"}).json()["id"]
    try:
        tried = [answers(demo, place, known, forms(place)) for place in (str(secret), address)]
        tried += [
            answers(demo, place, known, [place]) for place in (secret.as_uri(), str(link), "../../secret.png")
        ]
        for some in tried:
            for answer in some:
                assert answer.status_code < 500, (answer.request.url, answer.text)
                assert data not in answer.content, answer.request.url
    finally:
        link.unlink()
    assert not hits
    started = [job for job in jobs.list(100)[0] if job.request.files()]
    assert not started, "a job starts from a file that nobody sent"


def answers(demo, place: str, known: str, shapes: list):
    """Request every route with the place in its path, query and body."""
    for route in sorted(ROUTES):
        method, path = route.split(" ")
        if method in ("WS", "MOUNT"):
            continue
        for name in ("name", "video_id"):
            if f"{{{name}}}" in path:
                yield demo.request(method, path.replace("{video_id}", place, 1).replace("{name}", place))
                yield demo.request(
                    method, path.replace("{video_id}", place.replace("/", "%2F"), 1).replace("{name}", "x")
                )
        if method == "GET" and "{" not in path:
            yield demo.get(path, params={"file": place, "path": place, "url": place, "deep_link": place})
        if method == "POST":
            at = path.replace("{video_id}", known)
            for field, shape in itertools.product(FIELDS, shapes):
                yield demo.post(at, json={"prompt": "A cat", field: shape})
            for field in FIELDS:
                yield demo.post(at, data={"prompt": "A cat", field: place})
                yield demo.post(
                    at, data={"prompt": "A cat", field: json.dumps({"path": place, "meta": META})}
                )
            yield demo.post(at, files={"file": ("x", place), "input_reference": (place, b"")})


@pytest.mark.parametrize("mount", ["/page/static", "/static"])
@pytest.mark.parametrize(
    "way",
    [
        "/../routes.py",
        "/%2e%2e/routes.py",
        "/..%2froutes.py",
        "//etc/passwd",
        "/%2fetc%2fpasswd",
        "/examples/",
    ],
)
def test_only_static_files_are_served(demo, mount, way):
    answer = demo.get(mount + way)
    assert answer.status_code == 404


def test_nothing_of_gradio_answers(demo):
    for path in (
        "/demo/gradio_api/run/predict",
        "/gradio_api/config",
        "/demo/gradio_api/file=/etc/passwd",
        "/gradio_api/upload",
    ):
        assert demo.get(path).status_code == demo.post(path, json={"data": []}).status_code == 404


class TestToken:
    """Yield the demo with a token."""

    @pytest.fixture
    def guarded(self, jobs):
        with TestClient(
            create_demo(jobs, TOKEN),
            base_url="http://example.org",
            follow_redirects=False,
            raise_server_exceptions=False,
        ) as client:
            yield client

    def test_nothing_but_the_entrance_without_it(self, guarded):
        open_ones = {"GET /health", "GET /ready", "GET /watch/{video_id}"}
        for route in ROUTES - open_ones:
            method, path = route.split(" ")
            if method in ("GET", "POST", "DELETE"):
                answer = guarded.request(
                    method, path.replace("{video_id}", "video_" + "0" * 24).replace("{name}", "init.mp4")
                )
                assert answer.status_code == (303 if route == "GET /" else 401), route
        assert guarded.get("/page/static/page.js").status_code == 401

    def test_a_link_to_a_video_leads_there_by_way_of_the_entrance(self, guarded):
        first = guarded.get("/?video=video_0123")
        assert first.headers["location"] == "/enter?video=video_0123"
        assert guarded.post(first.headers["location"], data={"token": "wrong"}).status_code == 401
        let_in = guarded.post(first.headers["location"], data={"token": TOKEN})
        assert (let_in.status_code, let_in.headers["location"]) == (303, "/?video=video_0123")
        assert TOKEN not in let_in.headers["set-cookie"] and COOKIE in guarded.cookies
        page = guarded.get("/")
        assert page.status_code == 200 and "unsafe" not in page.headers["content-security-policy"]
        assert guarded.get("/v1/videos", headers={"Origin": "http://elsewhere.example"}).status_code == 401

    @pytest.mark.parametrize(
        "body", [b"token=" + b"x" * 100_000, b"\xff\xfe", b"&" * 5000, b"--x\r\n", b"token=%", b""]
    )
    def test_a_body_that_is_no_form_is_just_not_the_token(self, guarded, body, monkeypatch):
        monkeypatch.setattr("streamingt2v.web.door.WRONG_SECONDS", 0.0)
        for kind in (
            "application/x-www-form-urlencoded",
            "multipart/form-data",
            "multipart/form-data; boundary=x",
        ):
            assert guarded.post("/enter", content=body, headers={"Content-Type": kind}).status_code == 401

    @pytest.mark.parametrize("gone", [False, True])
    def test_a_form_that_does_not_end_is_not_waited_for(self, jobs, gone, monkeypatch):
        monkeypatch.setattr("streamingt2v.web.door.READ_SECONDS", 0.05)
        monkeypatch.setattr("streamingt2v.web.door.WRONG_SECONDS", 0.0)
        sent = []

        async def receive():
            if gone:
                return {"type": "http.disconnect"}
            await asyncio.sleep(60)

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/enter", "query_string": b"", "headers": []}
        with ThreadPoolExecutor(1) as thread:  # this one may have a browser's event loop
            thread.submit(asyncio.run, create_demo(jobs, TOKEN)(scope, receive, send)).result()
        assert sent[0]["status"] == 401

    @pytest.mark.parametrize("origin", ["http://[", "null", "", "http://"])
    def test_an_origin_that_is_none_is_not_let_in(self, guarded, origin):
        guarded.post("/enter", data={"token": TOKEN})
        assert guarded.get("/v1/videos", headers={"Origin": origin}).status_code == 401
