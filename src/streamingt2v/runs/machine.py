"""Choose a run's number of threads on a CPU: the cores that are free when it begins.

OpenMP's threads wait for each other by spinning. Beside a program that keeps a core busy, one thread per core
is therefore many times slower than a single thread. A run keeps its number (in its header), since sums round
differently by how they are split.
"""

import os
import time
from collections.abc import Mapping, MutableMapping
from pathlib import Path

SAMPLE_SECONDS = 0.1
SAMPLES = 4
SLACK = 0.4
"""Share of a core that small things may use, such as a server that is asked how far a job is."""
SPINS = "10000"
"""How long a thread spins before it sleeps. On a quiet machine 0.94 of the speed of OpenMP's 300000, beside a
neighbour 6 times its speed (lab/benchmarks/busy.py)."""
ITS_OWN = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")
STAT = Path("/proc/stat")


def bound_spinning(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let waiting threads sleep after a while. Call before torch is imported; user variables win."""
    if not any(name in environment for name in ITS_OWN):
        environment["GOMP_SPINCOUNT"] = SPINS


def choose_threads(environment: Mapping[str, str] = os.environ) -> int:
    """Set and return torch's number of threads: the cores that are free now, at least 1.

    It stays as it is where OMP_NUM_THREADS or MKL_NUM_THREADS is set, or the system does not tell.
    """
    import torch  # heavy, and only needed where something is computed

    cores = len(os.sched_getaffinity(0))
    if not {"OMP_NUM_THREADS", "MKL_NUM_THREADS"} & environment.keys():
        free = _most_free(cores)
        if free is not None:
            torch.set_num_threads(max(1, min(cores, int(free + SLACK))))
    return torch.get_num_threads()


def _most_free(cores: int) -> float | None:
    """Return the most of up to `SAMPLES` samples: a request or the end of a run is busy for a moment only."""
    found: list[float] = []
    for _ in range(SAMPLES):
        free = free_cores()
        if free is None:
            break
        found.append(free)
        if free + SLACK >= cores:
            break
    return max(found, default=None)


def free_cores(seconds: float = SAMPLE_SECONDS) -> float | None:
    """Return how many cores are idle, measured while this process sleeps; None if unknown."""
    before = _idle_and_total()
    time.sleep(seconds)
    after = _idle_and_total()
    if before is None or after is None or after[1] == before[1]:
        return None
    return (after[0] - before[0]) / (after[1] - before[1]) * (os.cpu_count() or 1)


def _idle_and_total() -> tuple[int, int] | None:
    """Return the cores' idle time and total time since boot; None where the system does not tell."""
    try:
        fields = [int(field) for field in STAT.read_text().splitlines()[0].split()[1:9]]
    except (OSError, ValueError, IndexError):
        return None
    return (fields[3] + fields[4], sum(fields)) if len(fields) > 4 else None
