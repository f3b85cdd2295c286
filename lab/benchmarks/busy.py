"""Measure new frames a second of a preview while other processes keep cores busy.

    python -m lab.benchmarks.busy [--rounds 3] [--frames 80] [--faces cli,server,batch]

Rows are settings of OpenMP's waiting threads, columns are 0, 1 and 2 processes that spin throughout.
`as shipped` sets nothing; every other row sets variables of the environment, which win over what we choose.
All cells are measured in turn, once a round; the table has their medians. Give it a machine that is quiet.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import httpx2

from lab.benchmarks.listening import started

PROMPT = "A cat running on the street"
OWN = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
ALL = {"OMP_NUM_THREADS": str(os.cpu_count())}
SETTINGS: dict[str, dict[str, str]] = {
    "as shipped": {},
    "all cores, GOMP_SPINCOUNT=1000": ALL | {"GOMP_SPINCOUNT": "1000"},
    "all cores, GOMP_SPINCOUNT=10000": ALL | {"GOMP_SPINCOUNT": "10000"},
    "all cores, GOMP_SPINCOUNT=100000": ALL | {"GOMP_SPINCOUNT": "100000"},
    "all cores, OpenMP's default (300000)": ALL | {"GOMP_SPINCOUNT": "300000"},
    "all cores, OMP_WAIT_POLICY=PASSIVE": ALL | {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
NEIGHBOURS = (0, 1, 2)


@contextmanager
def spinning(count: int) -> Iterator[None]:
    """Keep `count` processes busy; each takes what one core gives."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    time.sleep(1.0 if count else 0.0)
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def environment(setting: dict[str, str]) -> dict[str, str]:
    """Return this process's environment with a row's variables and without any other of their kind."""
    return {name: value for name, value in os.environ.items() if name not in OWN} | setting


def by_cli(setting: dict[str, str], frames: int, folder: Path) -> float:
    """Return the new frames a second that `generate` reports."""
    words = [
        "generate",
        PROMPT,
        "--frames",
        str(frames),
        "--overwrite",
        "-o",
        str(folder / "cli.mp4"),
        "--json",
        "-q",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "streamingt2v", *words],
        env=environment(setting),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])["new_frames_per_second"]


def by_batch(setting: dict[str, str], frames: int, folder: Path) -> float:
    """Return new frames a second of a table of one row, the start of the process left out."""
    table = folder / "table.jsonl"
    table.write_text(json.dumps({"prompt": PROMPT, "frames": frames}) + "\n")
    out = Path(tempfile.mkdtemp(dir=folder))
    command = [sys.executable, "-m", "streamingt2v", "batch", str(table), "-o", str(out), "-q"]
    subprocess.run(command, env=environment(setting), check=True, stdout=subprocess.DEVNULL)
    row = json.loads((out / "0001.json").read_text())
    return row["new_frames"] / row["seconds"]


def by_server(setting: dict[str, str], frames: int, folder: Path) -> float:
    """Return new frames per second of a job, from request to end, by a worker with a loaded model."""
    data = tempfile.mkdtemp(dir=folder)
    command = [sys.executable, "-m", "streamingt2v", "serve", "--port", "0", "--data-dir", data]
    server, address = started(command, folder / "server.log", environment(setting))
    try:
        with httpx2.Client(base_url=address, timeout=60) as http:
            _make(http, 8)
            began = time.monotonic()
            _make(http, frames)
            return frames / (time.monotonic() - began)
    finally:
        server.terminate()
        server.wait()


def _make(http: httpx2.Client, frames: int) -> None:
    job = http.post("/v1/videos", json={"prompt": PROMPT, "num_frames": frames}).raise_for_status().json()
    while job["status"] in ("queued", "in_progress"):
        time.sleep(0.05)
        job = http.get(f"/v1/videos/{job['id']}").raise_for_status().json()
    if job["status"] != "completed":
        raise SystemExit(f"the job ended as {job['status']}")


FACES: dict[str, Callable[[dict[str, str], int, Path], float]] = {
    "cli": by_cli,
    "server": by_server,
    "batch": by_batch,
}


def measure(face: str, settings: list[str], rounds: int, frames: int) -> dict[str, list[float]]:
    """Return the medians: setting -> new frames a second for each number of neighbours."""
    seen: dict[tuple[str, int], list[float]] = {
        (name, count): [] for name in settings for count in NEIGHBOURS
    }
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(rounds):
            for count in NEIGHBOURS:
                for name in settings:
                    with spinning(count):
                        seen[name, count].append(FACES[face](SETTINGS[name], frames, Path(folder)))
                    print(
                        f"{face} {turn + 1}: {name}, {count} beside: {seen[name, count][-1]:.2f}",
                        file=sys.stderr,
                    )
    return {name: [median(seen[name, count]) for count in NEIGHBOURS] for name in settings}


def table(face: str, rows: dict[str, list[float]]) -> str:
    """Return the medians as Markdown, each with its share of the best of its column."""
    best = [max(column) for column in zip(*rows.values(), strict=True)]
    lines = [f"| {face} | quiet | one neighbour | two neighbours |", "|---|---|---|---|"]
    for name, values in rows.items():
        cells = (f"{value:.1f} ({value / top:.2f})" for value, top in zip(values, best, strict=True))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--frames", type=int, default=80)
    p.add_argument("--faces", default="cli", help=f"some of {','.join(FACES)}")
    p.add_argument("--settings", default="", help="numbers of rows, from 0; all if empty")
    a = p.parse_args()
    names = list(SETTINGS)
    chosen = [names[int(number)] for number in a.settings.split(",")] if a.settings else names
    for face in a.faces.split(","):
        print(table(face, measure(face, chosen, a.rounds, a.frames)) + "\n", flush=True)


if __name__ == "__main__":
    main()
