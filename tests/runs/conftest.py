"""Small videos and runs for the tests of files."""

from __future__ import annotations

import os

import pytest

from run_folders import TOTAL, complete, create, digest
from streamingt2v.config import Request
from streamingt2v.video.writer import write_video


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """Skip flushes: they are for power cuts, and may take 0.1 s each on a busy disk."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.fixture(scope="module")
def source(tmp_path_factory, moving):
    path = tmp_path_factory.mktemp("source") / "input.mp4"
    write_video(path, moving(75), fps=8)
    return path


@pytest.fixture(scope="module", params=["generate", "extend"])
def request_(request, source):
    return Request(
        "a cat", num_frames=TOTAL, seed=3, video=str(source) if request.param == "extend" else None
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, request_):
    """Return the digest of an uninterrupted run's video."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with create(folder / "run", request_, output=folder / "v.mp4") as run:
        return digest(complete(run))
