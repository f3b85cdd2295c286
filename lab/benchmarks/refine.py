"""Measure memory and time of refining a file by frames, steps and workers, and the delay of the first
frame.

    python lab/benchmarks/refine.py [--frames 100 300] [--steps 1 2 4] [--workers 1 2] [--forms causal joint]

Each row is a fresh process of `streamingt2v refine` with one thread per process, so that workers share the
machine fairly. Other rows use the first of --frames and --workers and the model's own steps. Peak memory is
the command's own process's. Prints rows as they come, and one JSON line; exit 1 if workers change a byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lab.world import clip
from streamingt2v.video.writer import write_video

COLUMNS = (
    "against",
    "form",
    "frames",
    "steps",
    "workers",
    "seconds",
    "first_frame_seconds",
    "new_frames_per_second",
    "peak_rss_mb",
    "sha256",
)
SPEC = clip.sample(7)


def frames_of(count: int, at_a_time: int = 64) -> Iterator[np.ndarray]:
    """Yield a clip of the world at stage 2's size, (H, W, 3) uint8, holding only a few frames."""
    for start in range(0, count, at_a_time):
        yield from clip.render(SPEC, clip.frame_times(min(at_a_time, count - start), start / clip.FPS))[0]


def measure(against: str, form: str, frames: int, workers: int, model: str, steps: int | None = None) -> dict:
    """Return one row: the JSON of a command whose video is discarded."""
    with tempfile.TemporaryDirectory() as name:
        source, output = Path(name) / "in.mp4", Path(name) / "out.mp4"
        write_video(source, frames_of(frames), clip.FPS)
        words = [
            "refine",
            source,
            SPEC.caption,
            "--model",
            model,
            "--form",
            form,
            "--workers",
            workers,
            "-o",
            output,
            "--quiet",
            "--json",
        ]
        words += ["--steps", steps] if steps else []
        command = [sys.executable, "-m", "streamingt2v", *map(str, words)]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        digest = hashlib.sha256(output.read_bytes()).hexdigest()[:16]
    given = {
        "against": against,
        "form": form,
        "frames": frames,
        "steps": steps,
        "workers": workers,
        "sha256": digest,
    }
    values = json.loads(done.stdout.splitlines()[-1]) | given
    row = {column: values[column] for column in COLUMNS}
    print("".join(f"{value!s:>22}" for value in row.values()), flush=True)
    return row


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, nargs="+", default=[100, 300, 1000, 5000])
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--forms", nargs="+", default=["causal", "joint"])
    parser.add_argument("--model", default="tiny")
    asked = parser.parse_args()
    frames, workers, model = asked.frames[0], asked.workers[0], asked.model
    print("".join(f"{column:>22}" for column in COLUMNS), flush=True)
    rows = []
    for form in asked.forms:
        rows += [measure("frames", form, count, workers, model) for count in asked.frames]
        rows += [measure("steps", form, frames, workers, model, steps) for steps in asked.steps]
        rows += [measure("workers", form, frames, count, model) for count in asked.workers]
    digests = [
        {row["sha256"] for row in rows if (row["against"], row["form"]) == ("workers", form)}
        for form in asked.forms
    ]
    equal = all(len(found) <= 1 for found in digests)
    print(json.dumps({"benchmark": "refine", "model": model, "workers_agree": equal, "rows": rows}))
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
