"""Uploads at every route that takes files: quotas, rates, codecs, and fields that are null or numbers."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import pytest
from pydantic import BaseModel
from starlette.testclient import TestClient

from serving import picture
from streamingt2v import Request
from streamingt2v.api import realtime, schemas
from streamingt2v.jobs import service as services
from streamingt2v.jobs.service import JobService
from streamingt2v.jobs.settings import Limits, Settings
from streamingt2v.video.writer import write_video
from streamingt2v.web.app import create_demo

FIELDS = {"prompt": "A cat", "num_frames": "9"}
IMAGE = picture()
URL = {"image_url": f"data:image/png;base64,{base64.b64encode(IMAGE).decode()}"}
WAYS = {
    "create": ("/v1/videos", {"data": FIELDS, "files": {"input_reference": ("x.png", IMAGE)}}),
    "URL": ("/v1/videos", {"json": {"prompt": "A cat", "num_frames": 9, "input_reference": URL}}),
    "extend": ("/v1/videos/extensions", {"data": FIELDS, "files": {"video": ("x.png", IMAGE)}}),
    "the page": ("/page/look", {"files": {"file": ("x.png", IMAGE)}}),
}


@pytest.fixture
def service(toy, tmp_path) -> Iterator[JobService]:
    """A service without workers."""
    service = JobService(Settings(tmp_path / "data", (str(toy),), limits=Limits(uploads=1)))
    yield service
    service.__exit__()


@pytest.fixture
def client(service) -> Iterator[TestClient]:
    with TestClient(create_demo(service), base_url="http://localhost") as client:
        yield client


def answers(client: TestClient) -> dict[str, int]:
    return {name: client.post(path, **body).status_code for name, (path, body) in WAYS.items()}


def test_stored_uploads_have_a_limit_and_deleting_makes_room(service, client):
    path, body = WAYS["create"]
    made = client.post(path, **body).json()["id"]
    service.limits = replace(service.limits, upload_total=len(IMAGE))
    assert answers(client) == dict.fromkeys(WAYS, 429)
    assert "uploads are stored" in client.post(path, **body).json()["error"]["message"]
    assert client.post(path, json=FIELDS | {"num_frames": 9}).status_code == 200, "text needs no room"
    assert client.delete(f"/v1/videos/{made}").status_code == 200
    service.supervisor.clean()
    assert client.post(path, **body).status_code == 200
    assert list(service.files.uploads.iterdir()) == []


def test_so_many_files_are_received_at_once(service, client, monkeypatch):
    path, body = WAYS["create"]
    nested: list[dict[str, int]] = []

    def while_another_is_received() -> None:
        nested.append(answers(client))

    with monkeypatch.context() as patch:
        patch.setattr(service, "check_uploads", while_another_is_received)
        assert client.post(path, **body).status_code == 200
    assert nested == [dict.fromkeys(WAYS, 429)]
    assert client.post(path, **body).status_code == 200, "its turn is over"


NTSC = Fraction(30000, 1001)
ROUTES = {"/v1/videos": "input_reference", "/v1/videos/extensions": "video"}


@pytest.fixture
def decodes_nothing(monkeypatch):
    """Let the service fail if it decodes a video that an inspection has decoded."""

    def fail(path):
        raise AssertionError(f"{path} is decoded again")

    for name in ("count_frames", "playback_rate"):
        monkeypatch.setattr(services, name, fail)


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    ("rate", "length", "new"),
    [
        (NTSC, {"seconds": "2"}, None),
        (NTSC, {"num_frames": "60"}, 60),
        (NTSC, {"seconds": "2.002"}, 60),
        (Fraction(5, 2), {"seconds": "2"}, 5),
        (Fraction(30), {"seconds": "2"}, 60),
    ],
)
def test_seconds_are_counted_in_the_rate_of_the_file(
    client, decodes_nothing, tmp_path, moving, path, rate, length, new
):
    write_video(tmp_path / "a.mp4", moving(30), rate)
    files = {ROUTES[path]: ("a.mp4", (tmp_path / "a.mp4").read_bytes())}
    answer = client.post(path, data={"prompt": "A cat"} | length, files=files)
    if new is None:
        assert answer.status_code == 400 and "num_frames=60" in answer.json()["error"]["message"]
    else:
        made = answer.json()
        assert (made["num_frames"], made["fps"]) == (30 + new, pytest.approx(float(rate)))


@pytest.mark.parametrize("seconds", [2, 2.0, "2"])
def test_an_extension_goes_on_at_the_rate_of_its_video(service, client, decodes_nothing, seconds):
    id, rate = f"video_{'0' * 24}", Fraction(5, 2)
    service.store.add(id, "create", "toy", Request("A cat", 20), (32, 32, rate, 20), None, 9)
    service.store.claim(0)
    service.store.report(id, frames_done=20)
    service.store.end(id, "completed")
    service.files.of(id).mkdir()
    service.files.finished(id).write_bytes(b"inspected by nobody: it is our own")
    body = {"prompt": "A dog", "seconds": seconds, "video": {"id": id}}
    made = client.post("/v1/videos/extensions", json=body).json()
    assert (made["num_frames"], made["fps"]) == (25, 2.5)


@pytest.mark.parametrize("path", ROUTES)
def test_an_unknown_codec_is_a_400(client, tmp_path, moving, path):
    write_video(tmp_path / "a.mp4", moving(9), 8)
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.count(b"avc1") >= 1
    files = {ROUTES[path]: ("a.mp4", data.replace(b"avc1", b"zzzz").replace(b"avcC", b"zzzZ"))}
    answer = client.post(path, data={"prompt": "A cat"}, files=files)
    assert answer.status_code == 400 and answer.json()["error"]["param"] == ROUTES[path]


def bodies() -> list[type[BaseModel]]:
    known: list[type[BaseModel]] = [schemas.Asked]
    for kind in known:
        known += kind.__subclasses__()
    return [kind for kind in known if not kind.__name__.startswith("_") and kind is not schemas.Asked]


NEEDED = {
    "prompt": "A cat",
    "id": "x",
    "image_url": "x",
    "video_id": "x",
    "chunks": 0,
    "event": {"prompt": "A"},
    "interaction": {"event": {"prompt": "A"}},
}


@pytest.mark.parametrize("kind", bodies(), ids=lambda kind: kind.__name__)
def test_null_is_what_is_left_out_in_every_body(kind):
    assert realtime.SessionStart in bodies()
    fields = kind.model_fields
    needed = {name: NEEDED[name] for name, field in fields.items() if field.is_required() and name != "type"}
    if "type" in fields:
        (needed["type"],) = fields["type"].annotation.__args__
    plain = kind.model_validate(needed)
    for name in fields.keys() - needed.keys():
        assert kind.model_validate(needed | {name: None}) == plain, name


@pytest.mark.parametrize("field", ["num_frames", "seed", "schedule"])
def test_true_is_no_number(client, field):
    value = [[True, "A dog"]] if field == "schedule" else True
    answer = client.post("/v1/videos", json={"prompt": "A cat", field: value})
    assert answer.status_code == 400 and answer.json()["error"]["param"] == field


def test_a_file_that_was_not_chosen_is_left_out_and_a_text_is_no_file(client):
    made = client.post("/v1/videos", files={"prompt": (None, "A cat"), "input_reference": (None, "")})
    assert made.status_code == 200 and made.json()["kind"] == "create"
    refused = client.post("/v1/videos", files={"prompt": (None, "A cat"), "input_reference": (None, "x.png")})
    assert refused.status_code == 400 and "must be a file" in refused.json()["error"]["message"]


@pytest.mark.parametrize("form", ["data:image/png;base64,", "DATA:image/png;BASE64,"])
def test_data_urls_as_tools_write_them(client, decodes_nothing, form):
    url = form + base64.encodebytes(IMAGE).decode()
    answer = client.post("/v1/videos", json={"prompt": "A cat", "input_reference": {"image_url": url}})
    assert answer.status_code == 200
