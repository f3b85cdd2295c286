"""Kill (-9) the job service at random, and measure how soon a video can be watched.

    python lab/benchmarks/jobs.py kills [--jobs 10] [--kills 12] [--frames 64] [--model tiny]
    python lab/benchmarks/jobs.py first [--times 5] [--model tiny]

`kills` makes the jobs undisturbed, then again while killing worker and server in turn and restarting the
server; all must complete with the same bytes. `first` measures seconds from request to the first HLS segment
with a warm model. Each prints one JSON line; exit 1 for a lost job, other bytes, or a first segment after
more than 3 s.
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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from lab.benchmarks.listening import serving
from streamingt2v.client import Client
from streamingt2v.jobs.files import ServiceFiles
from streamingt2v.jobs.store import JobStore

PROMPT = "A cat running on the street"
MOST_SECONDS = 3.0


class Server:
    """The command `serve` on a folder: started, killed, restarted."""

    def __init__(self, folder: Path, model: str):
        self._command = serving(model, folder)
        self._folder = folder
        self.start()

    def start(self) -> None:
        """Start it and wait until it is ready."""
        self._process = subprocess.Popen(self._command, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None, "it is a pipe"
        for line in self._process.stderr:
            if "listening on" in line:
                self.url = line.split()[-1]
                return
        raise SystemExit("the server did not start")

    def kill(self) -> None:
        """Kill the server as a crash would."""
        self._process.kill()
        self._process.wait()

    def kill_worker(self) -> None:
        """Kill the process that makes the videos."""
        for pid in JobStore(ServiceFiles(self._folder).database).ready_workers().values():
            os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """Stop it gracefully."""
        self._process.terminate()
        self._process.wait()


@contextmanager
def server(model: str) -> Iterator[Server]:
    """Yield a server on its own folder."""
    with tempfile.TemporaryDirectory() as name:
        running = Server(Path(name), model)
        try:
            yield running
        finally:
            running.stop()


def submitted(running: Server, options: argparse.Namespace) -> list[str]:
    """Create jobs with different seeds; return their ids."""
    with Client(running.url) as client:
        return [
            client.create(PROMPT, num_frames=options.frames, seed=seed)["id"] for seed in range(options.jobs)
        ]


def digests(running: Server, ids: list[str]) -> list[str | None]:
    """Return SHA-256 of every job's file; None if it did not complete."""
    with Client(running.url) as client, tempfile.TemporaryDirectory() as name:
        path = Path(name) / "video.mp4"
        ends = [client.wait(id)["status"] == "completed" for id in ids]
        return [
            hashlib.sha256(client.download(id, path).read_bytes()).hexdigest() if ok else None
            for id, ok in zip(ids, ends, strict=True)
        ]


def frames_done(running: Server, ids: list[str]) -> int:
    """Return the finished frames of all jobs."""
    with Client(running.url) as client:
        return sum(client.get(id)["frames_done"] for id in ids)


def kills(options: argparse.Namespace) -> int:
    """Run the command `kills`."""
    with server(options.model) as running:
        began = time.monotonic()
        whole = digests(running, submitted(running, options))
        undisturbed = time.monotonic() - began
        print(f"undisturbed: {undisturbed:.1f} s", flush=True)
        ids, dice, total = submitted(running, options), random.Random(0), options.jobs * options.frames
        for number in range(options.kills):
            # spread kills over all jobs: wait for a share of the frames, then a random time
            while frames_done(running, ids) < total * number // (options.kills + 1):
                time.sleep(0.05)
            time.sleep(dice.uniform(0, undisturbed / options.kills / 2))
            done = frames_done(running, ids)
            if number % 2:
                running.kill()
                running.start()
            else:
                running.kill_worker()
            print(
                f"kill {number}: the {'server' if number % 2 else 'worker'}, {done} of {total} frames done",
                flush=True,
            )
        made = digests(running, ids)
    equal = sum(mine == theirs and mine is not None for mine, theirs in zip(made, whole, strict=True))
    asked = {"jobs": options.jobs, "kills": options.kills, "frames": options.frames, "model": options.model}
    print(
        json.dumps(
            {
                "benchmark": "jobs_kills",
                **asked,
                "completed": sum(d is not None for d in made),
                "equal": equal,
            }
        )
    )
    return 0 if equal == options.jobs else 1


def first(options: argparse.Namespace) -> int:
    """Run the command `first`."""
    times = []
    with server(options.model) as running, httpx2.Client(base_url=running.url, timeout=60) as http:
        for seed in range(options.times):
            began = time.monotonic()
            id = http.post("/v1/videos", json={"prompt": PROMPT, "num_frames": 64, "seed": seed}).json()["id"]
            playlist = http.get(f"/v1/videos/{id}/hls/playlist.m3u8")
            while playlist.status_code == 409:
                playlist = http.get(f"/v1/videos/{id}/hls/playlist.m3u8")
            for name in ("init.mp4", "seg_00000.m4s"):
                http.get(f"/v1/videos/{id}/hls/{name}").raise_for_status()
            times.append(time.monotonic() - began)
            print(f"{times[-1]:.2f} s", flush=True)
            http.delete(f"/v1/videos/{id}")
            while http.get("/metrics").text.find('streamingt2v_jobs{status="in_progress"} 0.0') < 0:
                time.sleep(0.05)
    worst = max(times)
    shown = {
        "benchmark": "first_segment",
        "model": options.model,
        "times": options.times,
        "mean": sum(times) / len(times),
        "max": worst,
    }
    print(
        json.dumps(
            {name: round(value, 3) if isinstance(value, float) else value for name, value in shown.items()}
        )
    )
    return 0 if worst <= MOST_SECONDS else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("kills", "first"))
    parser.add_argument("--jobs", type=int, default=10)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--model", default="tiny")
    options = parser.parse_args()
    if options.what == "kills":
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # runs compare only with the same number of threads
    return kills(options) if options.what == "kills" else first(options)


if __name__ == "__main__":
    sys.exit(main())
