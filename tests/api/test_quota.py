"""Quotas of uploads: files received at once, and bytes stored, at every route that takes files."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace

import pytest
from starlette.testclient import TestClient

from serving import picture
from streamingt2v.jobs.service import JobService
from streamingt2v.jobs.settings import Limits, Settings
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
