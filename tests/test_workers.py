"""Refine files by the command: the same bytes with any number of workers and after any stop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from streamingt2v.cli import main
from streamingt2v.errors import MissingExtra
from streamingt2v.ray_backend import Alone, Pool
from streamingt2v.runs.run import RunFolder
from streamingt2v.video.reader import count_frames
from streamingt2v.video.writer import write_video
from toy import write_toy_model

FRAMES = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A toy model, a video, and the video refined by one process that was never stopped."""
    folder = tmp_path_factory.mktemp("workers")
    write_toy_model(folder / "toy")
    rng = np.random.default_rng(0)
    write_video(
        folder / "in.mp4", (np.full((32, 32, 3), rng.integers(256), np.uint8) for _ in range(FRAMES)), 8
    )
    assert main(refine(folder, "whole.mp4")) == 0
    return folder


def refine(folder: Path, output: str, *more: str) -> list[str]:
    words = [
        "refine",
        str(folder / "in.mp4"),
        "A cat running on the street",
        "--model",
        str(folder / "toy"),
        "-o",
        str(folder / output),
    ]
    return [*words, "--form", "joint", "--quiet", *more]


def interrupt_after(monkeypatch, chunks: int) -> None:
    commit = RunFolder.commit

    def committed(run: RunFolder, chunk) -> None:
        commit(run, chunk)
        if run.chunks_committed == chunks:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "commit", committed)


@pytest.mark.parametrize("chunks", [1, 3])
def test_a_refinement_stopped_and_resumed_has_the_same_bytes(folder, monkeypatch, chunks):
    with monkeypatch.context() as patch:
        interrupt_after(patch, chunks)
        assert main(refine(folder, "again.mp4")) == 130
    assert main(["resume", str(folder / "again.run"), "--quiet"]) == 0
    assert (folder / "again.mp4").read_bytes() == (folder / "whole.mp4").read_bytes()
    assert count_frames(folder / "again.mp4") == FRAMES
    (folder / "again.mp4").unlink()


def test_two_workers_make_the_bytes_of_one(folder):
    pytest.importorskip("ray")
    assert main(refine(folder, "two.mp4", "--workers", "2")) == 0
    assert (folder / "two.mp4").read_bytes() == (folder / "whole.mp4").read_bytes()


def test_without_ray_the_line_to_type_is_told(monkeypatch):
    monkeypatch.setattr("streamingt2v.ray_backend.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'streamingt2v\[ray\]'"):
        Pool(dict, 2)


def test_alone_works_at_once_and_errors_come_out():
    assert Alone("a b").submit("split", " ").result() == ["a", "b"]
    with pytest.raises(TypeError):
        Alone("a b").submit("split", 5)
