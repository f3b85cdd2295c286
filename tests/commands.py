"""Run the command line in this process; read its output and files, and interrupt it."""

import os
import shlex
import signal
from pathlib import Path

import numpy as np

from streamingt2v.cli import main
from streamingt2v.video.writer import write_video

PROMPT = "A cat running on the street"
JSON_FIELDS = [
    *("output", "frames", "fps", "width", "height", "seed", "model", "preset", "seconds"),
    *("first_frame_seconds", "new_frames_per_second", "peak_rss_mb", "run_dir", "notes"),
]


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    """Run a command; return exit code, stdout and stderr."""
    capsys.readouterr()
    code = main([str(a) for a in arguments])
    return (code, *capsys.readouterr())


def listing() -> set[str]:
    return {str(path) for path in Path().rglob("*")}


def resume_line(stderr: str) -> list[str]:
    """Return the arguments of the printed `streamingt2v resume ...` line."""
    line = next(line for line in stderr.splitlines() if "streamingt2v resume" in line)
    return shlex.split(line.partition("streamingt2v ")[2])


def interrupt_at(chunk: int, number: int = signal.SIGINT):
    """Return a hook for the pipeline that signals this process before a chunk."""

    def hook(index: int) -> None:
        if index == chunk:
            os.kill(os.getpid(), number)

    return hook


def a_video(path: str, frames: int, fps: int) -> str:
    write_video(Path(path), (np.full((32, 48, 3), 7 * i, np.uint8) for i in range(frames)), fps)
    return path
