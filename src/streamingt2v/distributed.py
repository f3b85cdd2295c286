"""Work handed out: to this process alone, or to several by Ray. The only file that knows of Ray; it knows nothing of the work.

A crew has `size` workers, each with an object of its own, and `submit` calls a method of one of these objects that is idle.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from importlib.util import find_spec
from queue import SimpleQueue
from typing import Any, Protocol

from .errors import MissingExtra, RunError


class Crew(Protocol):
    """Workers that are all alike, so that it does not matter who does what."""

    @property
    def size(self) -> int:
        """How many calls may be under way at once."""

    def submit(self, method: str, *arguments: Any) -> Future:
        """Call a method of a worker's object. Blocks while all are busy."""


class Alone:
    """A crew of one: this process, which works at once, inside of `submit`."""

    size = 1

    def __init__(self, worker: Any):
        self._worker = worker

    def submit(self, method: str, *arguments: Any) -> Future:
        """See `Crew`; an error is raised here."""
        future: Future = Future()
        future.set_result(getattr(self._worker, method)(*arguments))
        return future


class Pool:
    """A crew of processes, each with the object that `make` makes there: on a GPU of its own if `gpus`, else on the CPU.

    They are on this machine, or in the cluster that the environment variable RAY_ADDRESS names. A context manager: leaving it ends them.
    MissingExtra without Ray; RunError where there are not as many GPUs, or when a worker dies.
    """

    def __init__(self, make: Callable[[], Any], size: int, gpus: bool = False):
        check_ray()
        self.size = size
        self._make, self._gpus = make, gpus

    def __enter__(self) -> Pool:
        import logging
        import os

        import ray

        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing that is made here is told to anyone
        os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's own 15 lets the workers starve beside anything else that computes
        cluster = "RAY_ADDRESS" in os.environ
        ray.init(**({} if cluster else {"num_cpus": self.size}), logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False)
        gpus = int(ray.cluster_resources().get("GPU", 0))
        if self._gpus and gpus < self.size:
            ray.shutdown()
            raise RunError(f"{self.size} workers need a GPU each and there are {gpus}: use fewer workers")
        kind = ray.remote(num_cpus=1, num_gpus=int(self._gpus))(_Worker)
        self._idle: SimpleQueue = SimpleQueue()
        for _ in range(self.size):
            self._idle.put(kind.remote(self._make))
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        import ray

        ray.shutdown()
        if isinstance(error, ray.exceptions.RayActorError):
            reason = str(error).strip().splitlines()[-1]  # the lines before tell which process it was
            raise RunError(f"a worker ended before its work was done: {reason}") from error

    def submit(self, method: str, *arguments: Any) -> Future:
        """See `Crew`; an error is raised by the future."""
        worker = self._idle.get()
        future = worker.call.remote(method, *arguments).future()
        future.add_done_callback(lambda _: self._idle.put(worker))
        return future


class _Worker:
    """What runs in a process of a pool."""

    def __init__(self, make: Callable[[], Any]):
        self._object = make()

    def call(self, method: str, *arguments: Any) -> Any:
        return getattr(self._object, method)(*arguments)


def check_ray() -> None:
    """MissingExtra unless Ray is installed. Imports nothing."""
    if find_spec("ray") is None:
        raise MissingExtra("workers", "ray")
