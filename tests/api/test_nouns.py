"""Embedded model, end to end: a prompt changed while the client watches soon shows in its frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lab.compare.judge import load_judge
from serving import served
from streamingt2v.client import Client
from streamingt2v.jobs.service import JobService
from streamingt2v.jobs.settings import Settings
from streamingt2v.video.reader import read_video

BEFORE, AFTER = "dog", "bus"


def test_the_new_noun_appears(tmp_path):
    data = b""
    with (
        JobService(Settings(tmp_path / "s")) as service,
        served(service) as url,
        Client(url, seconds=120) as client,
    ):
        with client.session(f"A {BEFORE} on the street", num_frames=56, seed=1) as session:
            for piece in session:
                if not data:
                    session.change_prompt(f"A {AFTER} on the street")
                data += piece.data
        assert session.done is not None and session.done["status"] == "completed"
    frames = seen(tmp_path / "video.mp4", data)
    judge = load_judge()
    assert (judge.judge(frames[:16]).noun, judge.judge(frames[-16:]).noun) == (BEFORE, AFTER)


def seen(path: Path, data: bytes) -> np.ndarray:
    """Return the frames of the received bytes."""
    path.write_bytes(data)
    return np.stack(list(read_video(path)))
