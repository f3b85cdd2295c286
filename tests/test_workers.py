"""Refining in several processes gives the bytes of one; skipped where Ray is not installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from streamingt2v.cli import main
from streamingt2v.distributed import Pool
from streamingt2v.errors import MissingExtra
from streamingt2v.io.reader import count_frames
from streamingt2v.io.writer import write_video
from toy import write_toy_model


def test_without_ray_the_line_to_type_is_told(monkeypatch):
    monkeypatch.setattr("streamingt2v.distributed.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'streamingt2v\[ray\]'"):
        Pool(dict, 2)


def test_two_workers_make_the_bytes_of_one(tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.chdir(tmp_path)
    write_toy_model(Path("toy"))
    rng = np.random.default_rng(0)
    write_video(Path("in.mp4"), (np.full((32, 32, 3), rng.integers(256), np.uint8) for _ in range(60)), 8)
    command = ["refine", "in.mp4", "A cat running on the street", "--model", "toy", "--form", "joint", "--quiet"]
    for workers in ("1", "2"):
        assert main([*command, "--workers", workers, "-o", f"{workers}.mp4"]) == 0
    assert Path("1.mp4").read_bytes() == Path("2.mp4").read_bytes()
    assert count_frames("2.mp4") == 60
