"""Measure what a server retains of finished requests: memory, descriptors, disk.

    sh -c 'ulimit -n 256; python lab/benchmarks/leaks.py [--jobs 300] [--bursts 20] [--burst 60]'

Creates, cancels and deletes videos in fifths, then sends bursts of requests. After each fifth it reads the
server's resident memory, open descriptors and bytes in its folder; the first fifth warms caches. Prints one
JSON line; exit 1 for a 5xx, more than 8 new descriptors, 10 % more memory, or a job's folder left behind.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx2
import psutil

from lab.benchmarks.listening import serving, started

PROMPT = "A cat running on the street"


def looked_at(process: psutil.Process, folder: Path) -> dict[str, int]:
    """Return the server's current numbers."""
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {
        "rss_kb": process.memory_info().rss // 1024,
        "descriptors": process.num_fds(),
        "disk_kb": size // 1024,
    }


async def one_life(http: httpx2.AsyncClient, answers: Counter) -> None:
    """Create, cancel and delete a video."""
    made = await http.post("/v1/videos", json={"prompt": PROMPT, "num_frames": 24})
    answers[made.status_code] += 1
    if made.status_code == 200:
        id = made.json()["id"]
        for answer in (await http.post(f"/v1/videos/{id}/cancel"), await http.delete(f"/v1/videos/{id}")):
            answers[answer.status_code] += 1


async def measure(
    url: str, options: argparse.Namespace, process: psutil.Process, folder: Path
) -> tuple[list[dict[str, int]], Counter]:
    """Return the numbers after each fifth, and all answers by status."""
    seen, answers = [], Counter()
    limits = httpx2.Limits(max_connections=options.burst)
    async with httpx2.AsyncClient(base_url=url, timeout=60, limits=limits) as http:
        for fifth in range(5):
            for _ in range(options.jobs // 5):
                await one_life(http, answers)
            for _ in range(options.bursts // 5):
                await asyncio.gather(*(one_life(http, answers) for _ in range(options.burst)))
            await asyncio.sleep(3)  # time for the server's cleanup
            seen.append(looked_at(process, folder))
            print(f"{fifth + 1}/5", seen[-1], flush=True)
    return seen, answers


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--bursts", type=int, default=20)
    parser.add_argument("--burst", type=int, default=60)
    parser.add_argument("--model", default="tiny")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "data"
        began = time.monotonic()
        process, url = started(serving(options.model, folder), Path(name) / "log")
        try:
            seen, answers = asyncio.run(measure(url, options, psutil.Process(process.pid), folder))
        finally:
            process.terminate()
            process.wait()
        left = len(list((folder / "jobs").iterdir()))
    first, last = seen[0], seen[-1]
    grown = {name: last[name] - first[name] for name in first}
    asked = {
        "jobs": options.jobs,
        "bursts": options.bursts,
        "burst": options.burst,
        "seconds": round(time.monotonic() - began),
    }
    print(
        json.dumps(
            {
                "benchmark": "leaks",
                **asked,
                "answers": dict(answers),
                "first": first,
                "last": last,
                "folders_left": left,
            }
        )
    )
    failed = any(status >= 500 for status in answers)
    return int(failed or left > 0 or grown["descriptors"] > 8 or grown["rss_kb"] > first["rss_kb"] / 10)


if __name__ == "__main__":
    sys.exit(main())
