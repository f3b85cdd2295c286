"""Small moving pictures and runs for the tests of files."""

from __future__ import annotations

import os

import numpy as np
import pytest

from run_folders import TOTAL, complete, create, digest
from streamingt2v.config import Request
from streamingt2v.io.writer import write_video


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """A flush is for power cuts, which no test can make; on a busy disk each may take a tenth of a second."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.fixture(scope="session")
def moving():
    """moving(frames, height=16, width=32, start=0): uint8 (T, H, W, 3), smooth, every frame unlike the others."""

    def make(frames: int, height: int = 16, width: int = 32, start: int = 0) -> np.ndarray:
        t = np.arange(start, start + frames).reshape(-1, 1, 1)
        y, x = np.arange(height).reshape(1, -1, 1), np.arange(width).reshape(1, 1, -1)
        red = 128 + 100 * np.sin((x + 3 * t) / 9)
        green = 128 + 100 * np.cos((y + 2 * t) / 7)
        blue = np.broadcast_to(40 + (t * 13) % 170, red.shape)
        return np.stack(np.broadcast_arrays(red, green, blue), -1).astype(np.uint8)

    return make


@pytest.fixture(scope="module")
def source(tmp_path_factory, moving):
    path = tmp_path_factory.mktemp("source") / "input.mp4"
    write_video(path, moving(75), fps=8)
    return path


@pytest.fixture(scope="module", params=["generate", "extend"])
def request_(request, source):
    return Request("a cat", frames=TOTAL, seed=3, video=str(source) if request.param == "extend" else None)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, request_):
    """The digest of the video of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with create(folder / "run", request_, output=folder / "v.mp4") as run:
        return digest(complete(run))
