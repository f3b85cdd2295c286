"""From a wheel in an empty environment to a video: one command each, against a local hub with toy weights.

    python lab/benchmarks/one_command.py                  # builds the wheel, installs it elsewhere
    python lab/benchmarks/one_command.py --fresh          # with all dependencies from the package index
    python lab/benchmarks/one_command.py --fresh --constraints constraints.txt  # in the tested versions
    python lab/benchmarks/one_command.py --here --steps 1 # this environment's package, quick

Without --fresh the new environment borrows this one's dependencies, not its streamingt2v. The repositories of
the hub have the published layouts; their autoencoders have six levels in the place of four, so that the
published sizes and steps take seconds. Prints a table: command, exit code, seconds and those of the
processor, frames and size of the video; exits 1 if a command fails. --steps shortens stages 1 and 2; --only
runs some.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import sysconfig
import time
import venv
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(
    0, str(Path(__file__).parents[2] / "tests")
)  # the local hub and its toy repositories are the tests'

from PIL import Image

import toy_bases
from hub_fixtures import hub_environment
from hub_server import Hub
from published_hub import put_streaming_svd, put_streaming_t2v, put_vid2vid

ROOT = Path(__file__).parents[2]
PROMPT = "A cat running on the street"
BASES = {"wan": "toy/wan-t2v", "ltx": "toy/ltx-video", "cogvideox": "toy/cogvideox"}
"""Modern bases, as whole models, under ids of the local hub."""

LEVELS = 6
"""Of the toy autoencoders: latents of 1/32 of the side, not 1/8."""


@dataclass(frozen=True)
class Result:
    name: str
    code: int
    seconds: float
    processor: float
    frames: int
    size: str
    error: str


def commands() -> dict[str, list[str]]:
    """Return the arguments of each `generate`, without output."""
    found = {
        "streaming-t2v": ["--model", "streaming-t2v", "--frames", "24"],
        "streaming-t2v-full": ["--model", "streaming-t2v", "--preset", "full", "--frames", "24"],
        "streaming-svd": ["--model", "streaming-svd", "--image", "start.png", "--frames", "24"],
    }
    for name, hub_id in BASES.items():
        height, width = toy_bases.TOYS[name].size
        size = ["--height", str(height), "--width", str(width)]  # what the toy network was built for
        found[name] = ["--model", hub_id, *size, "--frames", "24"]
    return found


def fill(hub: Hub, folder: Path) -> None:
    """Put the toy repositories into the hub."""
    put_streaming_t2v(hub, folder, LEVELS)
    put_vid2vid(hub)
    put_streaming_svd(hub, LEVELS)
    for name, hub_id in BASES.items():
        where = toy_bases.saved(name, folder / name)
        files = [path for path in where.rglob("*") if path.is_file()]
        hub.put(hub_id, {path.relative_to(where).as_posix(): path.read_bytes() for path in files})


def environment(folder: Path, fresh: bool, constraints: Path | None) -> Path:
    """Build the wheel, install it into a new virtual environment, and return its `streamingt2v`."""
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT], check=True)
    wheel = next(folder.glob("*.whl"))
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB", flush=True)
    place = folder / "venv"
    venv.create(place, with_pip=True)
    python = place / "bin" / "python"
    what = [f"{wheel}[bases]"] if fresh else ["--no-deps", str(wheel)]
    pinned = ["-c", str(constraints.absolute())] if constraints else []
    subprocess.run([python, "-m", "pip", "install", "-q", *pinned, *what], check=True)
    if not fresh:  # a path in a .pth file is searched last, and .pth files within it are not read
        own = subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
        (Path(own) / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return place / "bin" / "streamingt2v"


def processor_seconds() -> float:
    """Return the processor time of all children so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(name: str, words: list[str], program: list[str], env: dict[str, str], folder: Path) -> Result:
    """Run one `generate` and look at its video."""
    line = [*program, "generate", PROMPT, *words, "--yes", "--json", "-o", f"{name}.mp4"]
    began, before = time.perf_counter(), processor_seconds()
    done = subprocess.run(line, env=env, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    seconds, busy = time.perf_counter() - began, processor_seconds() - before
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        return Result(name, done.returncode, seconds, busy, 0, "", last)
    said = json.loads(done.stdout.splitlines()[-1])
    whole = (folder / f"{name}.mp4").stat().st_size > 0
    size = f"{said['width']}x{said['height']}"
    return Result(name, 0, seconds, busy, said["frames"], size, "" if whole else "the file is empty")


def main(arguments: list[str] | None = None) -> list[Result]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fresh", action="store_true", help="install dependencies from the package index")
    parser.add_argument("--constraints", type=Path, help="versions of the dependencies, for --fresh")
    parser.add_argument("--here", action="store_true", help="use this environment's package")
    parser.add_argument("--steps", type=int, help="denoising steps of stages 1 and 2")
    parser.add_argument("--only", nargs="*", choices=list(commands()))
    asked = parser.parse_args(arguments)
    results: list[Result] = []
    with TemporaryDirectory() as place, Hub() as hub:
        folder = Path(place)
        fill(hub, folder / "source")
        Image.new("RGB", (64, 36), "orange").save(folder / "start.png")
        here = [sys.executable, "-m", "streamingt2v"]
        program = here if asked.here else [str(environment(folder, asked.fresh, asked.constraints))]
        env = hub_environment(hub.url, folder)
        if not asked.here:
            env.pop("PYTHONPATH", None)
        for name, words in commands().items():
            if asked.only and name not in asked.only:
                continue
            steps = ["--steps", str(asked.steps)] if asked.steps else []
            results.append(run(name, [*words, *steps], program, env, folder))
            found = results[-1]
            line = (
                f"{found.name:20} exit {found.code}  {found.seconds:7.1f} s  {found.processor:7.1f} s of cpu"
            )
            line += f"  {found.frames:4} frames"
            print(f"{line}  {found.size:9} {found.error}", flush=True)
    return results


if __name__ == "__main__":
    sys.exit(int(any(result.code or result.error for result in main())))
