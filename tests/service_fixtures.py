"""A job service with a toy model and a worker process, and the API on a real port."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from streamingt2v.jobs.service import JobService


@pytest.fixture(scope="session", autouse=True)
def _workers_start_quickly() -> Iterator[None]:
    """Fork the workers of services, see `forking`."""
    import forking
    from streamingt2v.jobs import supervisor

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supervisor, "subprocess", forking)
        yield


@pytest.fixture(scope="session")
def toy(tmp_path_factory) -> Path:
    from toy import write_toy_model

    return write_toy_model(tmp_path_factory.mktemp("models") / "toy")


@pytest.fixture(scope="session")
def service(toy, tmp_path_factory) -> Iterator[JobService]:
    """Start one service for all tests that do not break it."""
    from streamingt2v.jobs.service import JobService
    from streamingt2v.jobs.settings import Settings

    with JobService(Settings(tmp_path_factory.mktemp("service"), (str(toy),), tries=3)) as jobs:
        jobs.wait_until_ready()
        yield jobs


@pytest.fixture(scope="session")
def url(service) -> Iterator[str]:
    from serving import served

    with served(service) as address:
        yield address


@pytest.fixture(scope="session")
def client(url):
    from streamingt2v.client import Client

    with Client(url) as client:
        yield client


@pytest.fixture(scope="module")
def video(client) -> dict:
    """Make a video; tests of this file may delete it."""
    return client.wait(client.create("A cat running on the street", num_frames=24)["id"])
