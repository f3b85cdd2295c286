"""Train all parts of the next model one after another within so many minutes; for a machine with a GPU.

    python -m lab.proof.whole RUNS --minutes 30 [--workers 15]

What needs no base (autoencoder, picture tower, judge) learns on the processor beside it. Every part goes on
from its last checkpoint, so the command may be given again, with more minutes. Not yet run on a GPU.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

SHARES = {"pictures": 0.25, "clips": 0.45, "cam": 0.15, "apm": 0.1}  # the rest is for starting processes


def commands(runs: Path, minutes: float, workers: int) -> tuple[list[list[str]], list[list[str]]]:
    """Those that follow one another, and those that run beside them."""
    common = ["--text", str(runs / "text"), "--code", str(runs / "code.safetensors")]

    def part(module: str, name: str, *more: str) -> list[str]:
        budget = ["--minutes", f"{SHARES[name] * minutes:.2f}", "--save_minutes", "2", "--look_minutes", "4"]
        return [module, str(runs / name), *common, *budget, *more]

    pictures, clips, cam = (str(runs / name) for name in ("pictures", "clips", "cam"))
    ahead = ["--workers", str(workers), "--decay", "0.4"]
    one_by_one = [
        part("base", "pictures", "--frames", "1", "--picture_batch", "256", *ahead),
        part("base", "clips", "--init", pictures, "--still_init", "1", "--batch", "64", *ahead),
        part("memory", "cam", "--kind", "cam", "--base", clips, "--batch", "32"),
        part("memory", "apm", "--kind", "apm", "--cam", cam, "--sight", str(runs / "sight"), "--batch", "32"),
    ]
    early = f"{0.6 * minutes:.2f}"  # APM needs the picture tower
    beside = [
        ["sight", str(runs / "sight"), "--text", str(runs / "text"), "--minutes", early],
        [
            "decoder",
            str(runs / "vae"),
            "--code",
            str(runs / "code.safetensors"),
            "--minutes",
            f"{0.9 * minutes:.2f}",
        ],
        ["judge", str(runs / "judge"), "--minutes", f"{0.9 * minutes:.2f}"],
    ]
    return one_by_one, beside


def main() -> None:
    p = argparse.ArgumentParser()
    p.add_argument("runs", type=Path)
    p.add_argument("--minutes", type=float, default=30)
    p.add_argument("--workers", type=int, default=12)
    a = p.parse_args()
    a.runs.mkdir(parents=True, exist_ok=True)

    def call(command: list[str]) -> list[str]:
        return [sys.executable, "-m", f"lab.proof.{command[0]}", *command[1:]]

    if not (a.runs / "code.safetensors").is_file():
        subprocess.run(call(["code", str(a.runs / "code.safetensors")]), check=True)
    if not (a.runs / "text" / "text_encoder").is_dir():
        subprocess.run(call(["words", str(a.runs / "text")]), check=True)
    one_by_one, beside = commands(a.runs, a.minutes, a.workers)
    helpers = [subprocess.Popen(call(command)) for command in beside]
    try:
        for command in one_by_one:
            subprocess.run(call(command), check=True)
        failed = [command[0] for command, helper in zip(beside, helpers, strict=True) if helper.wait()]
    finally:
        for helper in helpers:
            helper.terminate()
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
