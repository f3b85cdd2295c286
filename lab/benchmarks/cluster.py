"""Simulate batches, refining one film, and training on 10, 100, 1000 GPUs, from measured times and sizes.

    python lab/benchmarks/cluster.py [--gpus 10 100 1000] [--measure] [--chunk-seconds S] ... (see --help)

`--measure` measures on this machine with the included model; otherwise the numbers are those in `Measured` or
yours. Each row is simulated again with one cost at a time set to zero; the one that helps most is the
bottleneck. Network and store are assumptions. Prints the table and one JSON line.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch

from streamingt2v import LongVideoPipeline, Request
from streamingt2v.config import find_model
from streamingt2v.runs.render import create_run, render


@dataclass(frozen=True)
class Measured:
    """Seconds and megabytes: measured by `--measure`, derived from the included model, and assumed.

    chunk_seconds: of 8 new frames. encode_, step_, decode_seconds: of a refined window. load_seconds: of the
    model. weights_mb: of its folder. video_mb: of 240 frames. sample_seconds: of a training sample, forward
    and backward. window_mb: of a window's latents, both ways. gradient_mb: of recipe `base`, float32.
    dispatch_seconds: per row or window handed out. gpu_gbit, store_gbit: network of a worker, and of the
    store for all. hop_seconds: of a message between workers.
    """

    chunk_seconds: float = 0.6
    encode_seconds: float = 0.1
    step_seconds: float = 0.3
    decode_seconds: float = 0.2
    load_seconds: float = 4.0
    weights_mb: float = 75.0
    video_mb: float = 0.4

    sample_seconds: float = 0.25
    window_mb: float = 0.5
    gradient_mb: float = 64.0

    dispatch_seconds: float = 0.01

    gpu_gbit: float = 10.0
    store_gbit: float = 40.0
    hop_seconds: float = 50e-6


def batch_seconds(m: Measured, gpus: int) -> tuple[float, float]:
    """Return (makespan, useful seconds per GPU) for 10 rows per GPU of 80 to 720 frames, longest first."""
    rng = random.Random(0)
    rows = sorted((rng.choice((80, 240, 720)) for _ in range(10 * gpus)), reverse=True)
    load = m.load_seconds + gpus * m.weights_mb * 8e-3 / m.store_gbit  # all workers read the weights at once
    free = [load] * gpus
    handed, stored, work = 0.0, 0.0, 0.0
    heapq.heapify(free)
    for frames in rows:
        handed = max(handed, heapq.heappop(free)) + m.dispatch_seconds
        seconds = frames / 8 * m.chunk_seconds
        sent = m.video_mb * frames / 240 * 8e-3
        work += seconds
        stored = (
            max(stored, handed) + sent / m.store_gbit
        )  # the store takes one video at a time; workers need not wait
        heapq.heappush(free, handed + seconds + sent / m.gpu_gbit)
    return max(*free, stored), work / gpus


def film_seconds(
    m: Measured, gpus: int, windows: int = 2400, steps: int = 4, joint: bool = True
) -> tuple[float, float]:
    """Return (makespan, work seconds per GPU) for refining an hour of film, distributed as in
    `stages/refine.py`.

    A window's step waits for its neighbours' previous step; one window at a time is encoded or decoded; all
    latents pass through the one process that joins them.
    """
    film = _Film(windows, steps, (-1, 0, 1) if joint else (-1, 0))
    cost = m.window_mb * 8e-3 / m.gpu_gbit + m.dispatch_seconds
    lasts = {"encode": m.encode_seconds, "decode": m.decode_seconds, "step": m.step_seconds}
    working: list[tuple[float, str, int, int]] = []
    now, sent = 0.0, 0.0
    while len(film.decoded) < windows:
        while len(working) < gpus and (task := film.next_task()) is not None:
            sent = max(now, sent) + cost
            heapq.heappush(working, (sent + lasts[task[0]], *task))
        now, kind, window, step = heapq.heappop(working)
        film.finish(kind, window, step)
    return now, windows * (m.encode_seconds + m.decode_seconds + steps * m.step_seconds) / gpus


class _Film:
    """Runnable work: windows on their way through encoding, steps and decoding."""

    def __init__(self, windows: int, steps: int, neighbours: tuple[int, ...]):
        self.windows, self.steps, self.neighbours = windows, steps, neighbours
        self.done: set[tuple[int, int]] = set()
        self.decoded: set[int] = set()
        self._encoded, self._encoding, self._decoding = 0, False, False
        self._ready: list[tuple[int, int]] = []  # (minus the step, window): nearest to its end first

    def next_task(self) -> tuple[str, int, int] | None:
        """Return (kind, window, step) of the next task, as in the code: decode, then encode if the solver
        starves, then solve.
        """
        oldest = len(self.decoded)
        if not self._decoding and (oldest, self.steps - 1) in self.done:
            self._decoding = True
            return "decode", oldest, 0
        if not self._encoding and not self._ready and self._encoded < self.windows:
            self._encoding = True
            return "encode", self._encoded, 0
        if self._ready:
            step, window = heapq.heappop(self._ready)
            return "step", window, -step
        return None

    def finish(self, kind: str, window: int, step: int) -> None:
        """Release what waited for this task."""
        if kind == "decode":
            self._decoding = False
            self.decoded.add(window)
        elif kind == "encode":
            self._encoding = False
            self._encoded += 1
            heapq.heappush(self._ready, (0, window))
        else:
            self.done.add((window, step))
            for other in (window - n for n in self.neighbours):
                if step + 1 < self.steps and self._may(other, step + 1):
                    heapq.heappush(self._ready, (-step - 1, other))

    def _may(self, window: int, step: int) -> bool:
        needs = [window + n for n in self.neighbours if 0 <= window + n < self.windows]
        return 0 <= window < self.windows and all((other, step - 1) in self.done for other in needs)


def training_seconds(m: Measured, gpus: int, batch: int = 1024) -> tuple[float, float]:
    """Return (step seconds, work seconds per GPU) for a global batch of 1024 with ring all-reduce."""
    share = -(-batch // gpus)
    ring = 2 * (gpus - 1) / gpus * m.gradient_mb * 8e-3 / m.gpu_gbit + 2 * (gpus - 1) * m.hop_seconds
    return share * m.sample_seconds + ring, batch * m.sample_seconds / gpus


COSTS: dict[str, Callable[[Measured], Measured]] = {
    "loading": lambda m: replace(m, load_seconds=0.0, weights_mb=0.0),
    "encoding and decoding one at a time": lambda m: replace(m, encode_seconds=0.0, decode_seconds=0.0),
    "handing out": lambda m: replace(m, dispatch_seconds=0.0),
    "network": lambda m: replace(m, gpu_gbit=1e9, store_gbit=1e9, hop_seconds=0.0),
}
USES: dict[str, Callable[[Measured, int], tuple[float, float]]] = {
    "batch": batch_seconds,
    "film, joint": film_seconds,
    "film, causal": lambda m, gpus: film_seconds(m, gpus, joint=False),
    "training": training_seconds,
}
REST = {
    "batch": "the last rows",
    "film, joint": "waiting for neighbours",
    "film, causal": "waiting for neighbours",
    "training": "batch",
}


def simulated(use: str, m: Measured, gpus: int) -> dict[str, object]:
    """Return a row: seconds, efficiency (work over capacity), bottleneck."""
    seconds, work = USES[use](m, gpus)
    without = {name: USES[use](change(m), gpus)[0] for name, change in COSTS.items()}
    best = min(without, key=lambda name: without[name])
    saved, rest = seconds - without[best], without[best] - work
    limit = "nothing" if work > 0.95 * seconds else best if saved > rest else REST[use]
    return {
        "use": use,
        "gpus": gpus,
        "seconds": round(seconds, 2),
        "efficiency": round(work / seconds, 3),
        "limit": limit,
    }


def measure(m: Measured) -> Measured:
    """Measure the included model on this machine with one thread."""
    torch.set_num_threads(1)
    began = time.monotonic()
    pipe = LongVideoPipeline.from_pretrained("tiny")
    loaded = time.monotonic() - began
    weights = sum(file.stat().st_size for file in find_model("tiny").rglob("*") if file.is_file()) / 1e6
    seconds = {}
    with tempfile.TemporaryDirectory() as name:
        for preset in ("preview", "full"):
            asked = pipe.resolve(Request("A cat running on the street", num_frames=80, preset=preset))
            with create_run(pipe, asked, Path(name) / preset, "tiny") as run:
                summary = render(pipe, run, asked)
            seconds[preset] = summary.seconds / 10
        size = summary.output.stat().st_size / 1e6 * 3
    assert pipe.config.refine is not None, "the included model refines"
    windows = 8 / (pipe.config.refine.frames - pipe.config.refine.overlap)
    encode, decode = _coding(pipe, pipe.config.refine.frames - pipe.config.refine.overlap)
    step = ((seconds["full"] - seconds["preview"]) / windows - encode - decode) / pipe.config.refine.steps
    times = {
        "chunk_seconds": seconds["preview"],
        "encode_seconds": encode,
        "step_seconds": step,
        "decode_seconds": decode,
    }
    return replace(m, **times, load_seconds=loaded, weights_mb=weights, video_mb=size)


def _coding(pipe: LongVideoPipeline, frames: int) -> tuple[float, float]:
    """Return seconds to encode and decode this many frames of the refined size."""
    refiner, (height, width) = pipe.components.refiner, pipe.config.size("full")
    assert refiner is not None, "the included model refines"
    times = [time.monotonic()]
    for _ in range(3):
        latents = refiner.encode(torch.zeros(frames, 3, height, width))
        times.append(time.monotonic())
        refiner.decode(latents)
        times.append(time.monotonic())
    return min(b - a for a, b in zip(times[0::2], times[1::2], strict=False)), min(
        b - a for a, b in zip(times[1::2], times[2::2], strict=True)
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpus", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--measure", action="store_true")
    for field in fields(Measured):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=float)
    options = parser.parse_args()
    m = measure(Measured()) if options.measure else Measured()
    m = replace(
        m, **{f.name: value for f in fields(Measured) if (value := getattr(options, f.name)) is not None}
    )
    rows = [simulated(use, m, gpus) for use in USES for gpus in options.gpus]
    print(f"{'use':14} {'GPUs':>5} {'seconds':>9} {'efficiency':>10}  what limits")
    for row in rows:
        print(f"{row['use']:14} {row['gpus']:>5} {row['seconds']:>9} {row['efficiency']:>10}  {row['limit']}")
    print(
        json.dumps(
            {
                "benchmark": "cluster",
                "inputs": {f.name: round(getattr(m, f.name), 6) for f in fields(Measured)},
                "rows": rows,
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
