"""Kill (-9) a run at random moments and resume it: the file must equal an undisturbed one byte for byte.

    python lab/benchmarks/kills.py [--kills 20] [--frames 120] [--preset preview] [--model tiny] [--steps N]

Each trial kills a run after a random share of the whole run's time, resumes it and compares files. Prints a
line per trial and one JSON line; exit 1 if any file differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def command(*arguments: object) -> list[str]:
    """Return the installed command, as a user would type it."""
    return [sys.executable, "-m", "streamingt2v", *map(str, arguments)]


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def start(options: argparse.Namespace, run: Path) -> subprocess.Popen:
    """Start a run that keeps its folder; its file goes there too, so nothing depends on the trial."""
    words = [
        "generate",
        "A cat running on the street",
        "--frames",
        options.frames,
        "--preset",
        options.preset,
        "--model",
        options.model,
    ]
    words += [
        "--run-dir",
        run,
        "-o",
        run.with_suffix(".mp4"),
        "--quiet",
        *(["--steps", options.steps] if options.steps else []),
    ]
    return subprocess.Popen(command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def killed_and_resumed(
    options: argparse.Namespace, folder: Path, number: int, seconds: float
) -> tuple[str, str]:
    """Return the digest of a trial's file, and what happened."""
    run = folder / f"trial{number}"
    process = start(options, run)
    moment = random.Random(number).uniform(0, seconds)
    time.sleep(moment)
    process.send_signal(signal.SIGKILL)
    ended = process.wait() == 0
    journal = run / "journal.jsonl"
    committed = len(journal.read_text().splitlines()) if journal.is_file() else 0
    what = "had ended" if ended else f"killed at {moment:5.1f} s, {committed} chunks committed"
    if (run / "request.json").is_file():
        subprocess.run(
            command("resume", run, "--quiet", "--overwrite"), check=True, stdout=subprocess.DEVNULL
        )
    elif start(options, run).wait() != 0:  # killed before the run existed: start it again
        raise SystemExit(f"trial {number}: the command did not start again after a kill")
    return digest(run.with_suffix(".mp4")), what


def main() -> int:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # two runs compare only with the same number of threads
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--frames", type=int, default=120)
    parser.add_argument("--preset", choices=("preview", "full"), default="preview")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--steps", type=int)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.monotonic()
        if start(options, folder / "whole").wait() != 0:
            raise SystemExit("the uninterrupted run failed")
        seconds, whole = time.monotonic() - began, digest(folder / "whole.mp4")
        print(f"never stopped: {seconds:.1f} s, {whole[:16]}", flush=True)
        equal = 0
        for number in range(options.kills):
            mine, what = killed_and_resumed(options, folder, number, seconds)
            equal += mine == whole
            print(f"trial {number:2d}: {what}: {'equal' if mine == whole else 'DIFFERENT'}", flush=True)
    print(
        json.dumps(
            {
                "benchmark": "kills",
                "kills": options.kills,
                "frames": options.frames,
                "preset": options.preset,
                "equal": equal,
            }
        )
    )
    return 0 if equal == options.kills else 1


if __name__ == "__main__":
    sys.exit(main())
