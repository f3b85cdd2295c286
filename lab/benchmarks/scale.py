"""Run forty prompts by `batch`: two workers against one, with kills (-9), and against single runs' bytes.

    python lab/benchmarks/scale.py [--rows 40] [--frames 80] [--workers 2] [--kills 3] [--singles 2]

Three batches of one table with one thread per process: one worker, several, several with kills. `speedup`
compares whole commands, `steady` rows per second between the first and last row. Needs the extra 'ray',
Linux, and as many idle cores as workers. Prints a line per batch and one JSON line; exit 1 if a row is
missing, reported twice, or differs.
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
import threading
import time
from dataclasses import dataclass
from pathlib import Path

PROMPT = "A cat running on the street"


@dataclass
class Batch:
    """Results of a batch. seconds: of the command; told: seconds until each row was reported; sha256: by
    row.
    """

    seconds: float
    told: list[float]
    names: list[str]
    sha256: dict[str, str]
    killed: int = 0

    @property
    def rows_per_second(self) -> float:
        """Return rows per second between the first and the last row."""
        return (len(self.told) - 1) / (self.told[-1] - self.told[0])


def command(*words: object) -> list[str]:
    """Return the installed command, as a user would type it."""
    return [sys.executable, "-m", "streamingt2v", *map(str, words)]


def write_table(options: argparse.Namespace, path: Path) -> None:
    """Write a table with one seed per row."""
    steps = {"steps": options.steps} if options.steps else {}
    rows = [
        {"name": f"s{n}", "prompt": PROMPT, "seed": n, "frames": options.frames, **steps}
        for n in range(options.rows)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def run_batch(options: argparse.Namespace, table: Path, out: Path, workers: int, kills: int = 0) -> Batch:
    """Run the command; kill `kills` workers, spread over the rows."""
    began = time.monotonic()
    words = command(
        "batch", table, "--out", out, "--workers", workers, "--model", options.model, "--json", "-q"
    )
    process = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    batch = Batch(0.0, [], [], {})
    at = {options.rows * (number + 1) // (kills + 1) for number in range(kills)}  # wait for this many rows
    assert process.stdout is not None
    for line in process.stdout:
        if not line.startswith("{"):
            continue
        values = json.loads(line)
        if "name" not in values:
            continue
        batch.told.append(time.monotonic() - began)
        batch.names.append(values["name"])
        batch.sha256[values["name"]] = values.get("sha256", values.get("error", ""))
        if len(batch.told) in at:
            batch.killed += kill_a_worker(process.pid, len(batch.told))
    if process.wait() != 0:
        raise SystemExit(f"batch with {workers} workers ended with {process.returncode}")
    batch.seconds = time.monotonic() - began
    return batch


def kill_a_worker(root: int, number: int) -> int:
    """Kill one worker of that process; return how many were killed (0 or 1)."""
    workers = [
        pid for pid in descendants(root) if b"ray::MapWorker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    if not workers:
        return 0
    pid = random.Random(number).choice(sorted(workers))
    delay = random.Random(number).uniform(0.1, 1.0)  # in the middle of a row, not between two
    threading.Timer(delay, os.kill, (pid, signal.SIGKILL)).start()
    return 1


def descendants(root: int) -> set[int]:
    """Return the descendants of that process."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {root}


def single(options: argparse.Namespace, folder: Path, seed: int) -> str:
    """Return the SHA-256 of the file that `generate` makes of a row."""
    out = folder / f"single{seed}.mp4"
    steps = ["--steps", options.steps] if options.steps else []
    words = [
        "generate",
        PROMPT,
        "--seed",
        seed,
        "--frames",
        options.frames,
        "--model",
        options.model,
        "-o",
        out,
        "-q",
        *steps,
    ]
    subprocess.run(
        command(*words), check=True, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    return hashlib.sha256(out.read_bytes()).hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=40)
    parser.add_argument("--frames", type=int, default=80)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--singles", type=int, default=2)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--steps", type=int)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_table(options, folder / "rows.jsonl")
        plan = {"one": (1, 0), "many": (options.workers, 0), "killed": (options.workers, options.kills)}
        batches = {}
        for label, (workers, kills) in plan.items():
            batch = batches[label] = run_batch(options, folder / "rows.jsonl", folder / label, workers, kills)
            text = (
                f"{workers} workers, {batch.killed} killed: {len(batch.told)} rows in {batch.seconds:.1f} s"
            )
            print(f"{text}, {batch.rows_per_second:.3f} rows/s once running", flush=True)
        singles = {f"s{seed}": single(options, folder, seed) for seed in range(options.singles)}
    one, many, killed = batches.values()
    names = sorted(f"s{number}" for number in range(options.rows))
    each_once = all(sorted(batch.names) == names for batch in batches.values())
    equal = one.sha256 == many.sha256 == killed.sha256 and singles.items() <= one.sha256.items()
    result = {
        "benchmark": "scale",
        "rows": options.rows,
        "frames": options.frames,
        "workers": options.workers,
        "seconds": {label: round(batch.seconds, 2) for label, batch in batches.items()},
        "speedup": round(one.seconds / many.seconds, 3),
        "steady": round(many.rows_per_second / one.rows_per_second, 3),
        "kills": killed.killed,
        "each_row_once": each_once,
        "bytes_equal": equal,
    }
    print(json.dumps(result))
    return 0 if each_once and equal and killed.killed == options.kills else 1


if __name__ == "__main__":
    sys.exit(main())
