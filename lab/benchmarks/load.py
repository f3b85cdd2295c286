"""Run many clients on one server: no job may be lost or stuck, and status queries stay fast.

    python lab/benchmarks/load.py [--clients 200] [--seconds 180] [--model tiny] [--frames 24]

Starts `streamingt2v serve`; clients create, poll, stream (HLS, the growing file, events) and cancel at
random; then waits for the rest. A job is lost if the server forgot it or it ended in a wrong state. Refusals
by a full queue are counted. Prints one JSON line; exit 1 for a lost or stuck job or a 5xx.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from lab.benchmarks.listening import serving, started

ENDED = ("completed", "failed", "cancelled")


@dataclass
class Tally:
    """Observations of all clients. jobs: id -> whether its client cancelled it."""

    jobs: dict[str, bool] = field(default_factory=dict)
    status_seconds: list[float] = field(default_factory=list)
    answers: Counter = field(default_factory=Counter)
    streamed: int = 0


def start(options: argparse.Namespace, folder: Path) -> tuple[subprocess.Popen, str]:
    """Start the server; return it and its address."""
    return started(serving(options.model, folder / "data"), folder / "log")


async def one_client(
    http: httpx2.AsyncClient, number: int, options: argparse.Namespace, tally: Tally, until: float
) -> None:
    """Create videos in sequence and act on each at random."""
    dice = random.Random(number)
    while time.monotonic() < until:
        asked = {"prompt": "A cat running on the street", "num_frames": options.frames, "seed": number}
        answer = await call(http, tally, "POST", "/v1/videos", json=asked)
        if answer is None or answer.status_code != 200:
            await asyncio.sleep(dice.uniform(0.5, 2))
            continue
        id = answer.json()["id"]
        tally.jobs[id] = False
        deed = dice.choice(("poll", "poll", "cancel", "stream", "playlist", "events"))
        if deed in ("stream", "events"):
            await stream(
                http,
                tally,
                f"/v1/videos/{id}/{'content' if deed == 'stream' else 'events'}",
                dice.uniform(1, 10),
            )
        patience = min(until, time.monotonic() + dice.uniform(2, 30))
        while time.monotonic() < patience and await status(http, tally, id) not in ENDED:
            if deed == "playlist":
                await call(http, tally, "GET", f"/v1/videos/{id}/hls/playlist.m3u8")
            await asyncio.sleep(dice.uniform(0.2, 1))
        if deed == "cancel":
            tally.jobs[id] = True
            await call(http, tally, "POST", f"/v1/videos/{id}/cancel")


async def call(
    http: httpx2.AsyncClient, tally: Tally, method: str, path: str, **arguments: object
) -> httpx2.Response | None:
    """Return and count the answer; None if there was none."""
    try:
        answer = await http.request(method, path, **arguments)
    except httpx2.TransportError as error:
        tally.answers[type(error).__name__] += 1
        return None
    tally.answers[str(answer.status_code)] += 1
    return answer


async def status(http: httpx2.AsyncClient, tally: Tally, id: str) -> str | None:
    """Query a job's state, timed."""
    began = time.monotonic()
    answer = await call(http, tally, "GET", f"/v1/videos/{id}")
    tally.status_seconds.append(time.monotonic() - began)
    return answer.json()["status"] if answer is not None and answer.status_code == 200 else None


async def stream(http: httpx2.AsyncClient, tally: Tally, path: str, seconds: float) -> None:
    """Read for a while, then disconnect midway."""
    try:
        async with asyncio.timeout(seconds), http.stream("GET", path) as answer:
            tally.answers[str(answer.status_code)] += 1
            async for piece in answer.aiter_bytes():
                tally.streamed += len(piece)
    except (TimeoutError, httpx2.TransportError):
        pass


async def drain(http: httpx2.AsyncClient, tally: Tally, seconds: float) -> Counter:
    """Cancel waiting jobs, let running ones finish, count all final states."""
    ends: Counter = Counter()
    deadline = time.monotonic() + seconds
    for id in tally.jobs:
        if (await http.get(f"/v1/videos/{id}")).json().get("status") == "queued":
            tally.jobs[id] = True
            await http.post(f"/v1/videos/{id}/cancel")
    for id, cancelled in tally.jobs.items():
        while (answer := await http.get(f"/v1/videos/{id}")).status_code == 200 and answer.json()[
            "status"
        ] not in ENDED:
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(0.2)
        end = answer.json().get("status", "lost")
        expected = end == "completed" or (end == "cancelled" and cancelled)
        ends[end if expected else "lost" if end in (*ENDED, "lost") else "stuck"] += 1
    return ends


async def load(url: str, options: argparse.Namespace) -> tuple[Tally, Counter]:
    """Run all clients at once, then drain."""
    tally, until = Tally(), time.monotonic() + options.seconds
    limits = httpx2.Limits(max_connections=2 * options.clients, max_keepalive_connections=2 * options.clients)
    async with httpx2.AsyncClient(base_url=url, limits=limits, timeout=30) as http:
        await asyncio.gather(
            *(one_client(http, number, options, tally, until) for number in range(options.clients))
        )
        return tally, await drain(http, tally, 300)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--frames", type=int, default=24)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        process, url = start(options, Path(name))
        try:
            tally, ends = asyncio.run(load(url, options))
        finally:
            process.terminate()
            process.wait()
        log = (Path(name) / "log").read_text()
    times = sorted(tally.status_seconds)
    percentile = {
        f"status_p{share}_ms": round(1000 * times[len(times) * share // 100], 1) for share in (50, 95, 99)
    }
    server_errors = sum(count for answer, count in tally.answers.items() if answer.startswith("5"))
    result = {
        "benchmark": "load",
        "clients": options.clients,
        "seconds": options.seconds,
        "model": options.model,
        "jobs": len(tally.jobs),
        **{end: ends[end] for end in ("completed", "cancelled", "lost", "stuck")},
        "status_calls": len(times),
        **percentile,
        "answers": dict(sorted(tally.answers.items())),
        "streamed_bytes": tally.streamed,
    }
    if server_errors:
        print(log[-5000:], file=sys.stderr)
    print(json.dumps(result))
    return 1 if ends["lost"] or ends["stuck"] or server_errors else 0


if __name__ == "__main__":
    sys.exit(main())
