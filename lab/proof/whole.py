"""Train, assemble, distil and measure the next model with one command; for a machine with a GPU.

    python -m lab.proof.whole RUNS --minutes 30 [--call_minutes 9] [--workers 12]

Parts that need no base (autoencoder, image tower, judge) train on the CPU meanwhile. Finished parts are
marked in RUNS/done, unfinished ones resume from their checkpoints, so the same command continues. After
`call_minutes` it stops cleanly with exit code 75. The model is RUNS/model, the page RUNS/results.md.
`--toy 1` runs everything at toy size, `--here 1` in this process, one part after another.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

MEMORY = 0.07
SHARES = {  # of the minutes; the rest is for starting processes
    "pictures": 0.16,
    "clips": 0.33,
    "cam": MEMORY,
    "last-frame": MEMORY,
    "concatenate": MEMORY,
    "additive": MEMORY,
    "apm": 0.07,
    "refiner": 0.06,
    "student": 0.05,
    "sight": 0.5,
    "vae": 0.8,
    "judge": 0.85,
}
BESIDE = ("sight", "vae", "judge")
AGAIN = 75  # exit code: stopped by the clock, run again

TOY = {
    "code": "--images 10",
    "words": "--steps 2",
    "base": "--steps 2 --batch 1 --picture_batch 2 --compile 0 --channels 32,32 --look_steps 1",
    "decoder": "--steps 2 --batch 4 --check 2 --channels 16,16,16,16",
    "judge": "--steps 1 --check 1",
    "sight": "--steps 2 --batch 2",
    "memory": "--steps 1 --batch 1 --look_steps 1",
    "refiner": "--steps 2 --batch 1 --picture_batch 2 --channels 16,32",
    "export": "--guidance_scale 1 --time_guidance 0 --steps 4",
    "distill": "--steps 2 --batch 1 --videos 1 --chunks 2",
    "results": "--prompts 1 --seeds 1 --compared 1 --hidden 1 --back 1 --long 1 --frames 17 --seam_frames 17 "
    "--hidden_frames 17 --back_frames 33 --long_frames 17 --truth 1 --free FreeNoise",
}


@dataclass(frozen=True)
class Part:
    """A part: its name, its module in this package, and the words of its command."""

    name: str
    module: str
    words: list[str]


def parts(
    runs: Path, minutes: float, workers: int, toy: bool = False, init: Path | None = None
) -> list[Part]:
    """Return all parts in order; those of `BESIDE` need only parts before them.

    init: folder of a base to start from, see `warm`.
    """
    text, code = ["--text", str(runs / "text")], ["--code", str(runs / "code.safetensors")]
    base, drawn = ["--base", str(runs / "clips")], ["--workers", str(workers), "--decay", "0.4"]
    often = ["--save_minutes", "2", "--look_minutes", "4"]
    memory = [*text, *code, "--batch", "32", *often]
    begin = ["--init", str(init)] if init else []
    told = {
        "code": ("code", []),
        "text": ("words", []),
        "sight": ("sight", text),
        "judge": ("judge", []),
        "pictures": (
            "base",
            [*text, *code, "--frames", "1", "--picture_batch", "256", *begin, *drawn, *often],
        ),
        "vae": ("decoder", [*code, "--base", str(runs / "pictures"), *text]),
        "clips": (
            "base",
            [
                *text,
                *code,
                "--init",
                str(runs / "pictures"),
                "--still_init",
                "1",
                "--batch",
                "64",
                *drawn,
                *often,
            ],
        ),
        "cam": ("memory", ["--kind", "cam", *base, *memory]),
        "last-frame": ("memory", ["--kind", "last-frame", *base, *memory]),
        "concatenate": ("memory", ["--kind", "concatenate", *base, *memory]),
        "additive": ("memory", ["--kind", "additive", *base, *memory]),
        "apm": (
            "memory",
            ["--kind", "apm", "--cam", str(runs / "cam"), "--sight", str(runs / "sight"), *memory],
        ),
        "refiner": ("refiner", [*text, *code, "--batch", "16", "--picture_batch", "64", *drawn, *often]),
        "teacher-model": ("export", []),
        "student": (
            "distill",
            ["--model", str(runs / "teacher-model"), "--together", "40", "--batch", "32", *often],
        ),
        "model": ("export", ["--student"]),
        "results": ("results", ["--page", str(runs / "results.md")]),
    }
    found = []
    for name, (module, words) in told.items():
        places = [str(runs), str(runs / name)] if module in ("export", "results") else [str(runs / name)]
        places = [str(runs / "code.safetensors")] if name == "code" else places
        budget = ["--minutes", f"{SHARES[name] * minutes:.3f}"] if name in SHARES else []
        if module == "memory":
            budget += ["--steps", str(10**9)]
        small = TOY[module].split() if toy else []
        found.append(Part(name, module, [*places, *words, *budget, *small]))
    return found


class Crew:
    """Run parts as processes, or in this one; stop at the deadline."""

    def __init__(self, runs: Path, deadline: float, here: bool):
        self.done, self.deadline, self.here = runs / "done", deadline, here
        self.beside: dict[str, subprocess.Popen] = {}
        self.done.mkdir(parents=True, exist_ok=True)

    def begin(self, part: Part) -> None:
        """Start a part beside the others."""
        if self.here:
            self.run(part)
        elif not self._is_done(part.name):
            self.beside[part.name] = subprocess.Popen(_command(part))

    def run(self, part: Part) -> None:
        """Run a part to its end."""
        if self._is_done(part.name):
            return
        print(f"{part.name}: {time.strftime('%H:%M:%S')}", flush=True)
        if self.here:
            import_module(f"lab.proof.{part.module}").main(part.words)
            self._mark(part.name)
        else:
            self._wait(part.name, subprocess.Popen(_command(part)))

    def join(self, *names: str) -> None:
        """Wait for parts that run beside."""
        for name in names:
            if name in self.beside:
                self._wait(name, self.beside.pop(name))

    def stop(self) -> None:
        """Let what runs beside save and end."""
        for process in self.beside.values():
            process.terminate()
        for process in self.beside.values():
            process.wait()

    def _wait(self, name: str, process: subprocess.Popen) -> None:
        try:
            code = process.wait(max(0.0, self.deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()
            raise SystemExit(AGAIN) from None
        if code:
            raise SystemExit(f"{name} failed with exit code {code}")
        self._mark(name)

    def _is_done(self, name: str) -> bool:
        return (self.done / name).is_file()

    def _mark(self, name: str) -> None:
        (self.done / name).touch()


def _command(part: Part) -> list[str]:
    return [sys.executable, "-m", f"lab.proof.{part.module}", *part.words]


NEEDS = {"apm": ("sight",), "teacher-model": ("vae",), "results": ("judge",)}


def main(words: list[str] | None = None) -> None:
    p = argparse.ArgumentParser()
    p.add_argument("runs", type=Path)
    p.add_argument("--minutes", type=float, default=30)
    p.add_argument("--call_minutes", type=float, default=10**6)
    p.add_argument("--workers", type=int, default=12)
    p.add_argument("--init", type=Path, help="a base to start from, see lab.proof.warm")
    p.add_argument("--toy", type=int, default=0)
    p.add_argument("--here", type=int, default=0)
    a = p.parse_args(words)
    crew = Crew(a.runs, time.monotonic() + 60 * a.call_minutes, bool(a.here))
    every = parts(a.runs, a.minutes, a.workers, bool(a.toy), a.init)
    try:
        for part in every:
            if part.name in BESIDE:
                crew.begin(part)
                continue
            crew.join(*NEEDS.get(part.name, ()))
            crew.run(part)
    finally:
        crew.stop()


if __name__ == "__main__":
    main()
