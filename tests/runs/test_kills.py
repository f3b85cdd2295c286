"""A process killed (-9) and resumed makes the file of an uninterrupted one."""

from __future__ import annotations

import hashlib
import sys
import time
from pathlib import Path

import pytest

import forking
from streamingt2v.video.reader import count_frames
from toy import write_toy_model

FRAMES = 72  # so many that none of the kills below comes after the end, however fast the machine is


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_toy_model(tmp_path_factory.mktemp("model") / "toy")


def generate(model: Path, run: Path) -> list[str]:
    words = [
        "generate",
        "A cat running on the street",
        "--frames",
        FRAMES,
        "--preset",
        "full",
        "--model",
        model,
        "--run-dir",
        run,
    ]
    return [
        sys.executable,
        "-m",
        "streamingt2v",
        *map(str, words),
        "-o",
        str(run.with_suffix(".mp4")),
        "--quiet",
    ]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    forking.run(generate(model, run), check=True)
    return run.with_suffix(".mp4")


@pytest.mark.parametrize("committed, later", [(1, 0.0), (3, 0.15)])
def test_killed_and_resumed(model, whole, tmp_path, committed, later):
    """Kill the process `later` seconds after so many commits: during the next chunk or its commit."""
    run = tmp_path / "run"
    process = forking.Popen(generate(model, run))
    journal = run / "journal.jsonl"
    deadline = time.monotonic() + 120
    while not (journal.is_file() and journal.read_text().count("\n") >= committed):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    time.sleep(later)
    process.kill()
    assert process.wait() != 0, "it was to be killed before its end"
    assert not run.with_suffix(".mp4").exists()
    forking.run([sys.executable, "-m", "streamingt2v", "resume", str(run), "--quiet"], check=True)
    assert count_frames(run.with_suffix(".mp4")) == FRAMES
    assert digest(run.with_suffix(".mp4")) == digest(whole)
    assert {path.name for path in tmp_path.iterdir()} == {"run", "run.mp4"}, "nothing half-written is left"
