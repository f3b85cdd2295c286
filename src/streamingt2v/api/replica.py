"""A replica of the server on a shared folder, and the number of replicas that a queue needs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fastapi import FastAPI

from ..jobs.service import JobService
from ..jobs.settings import Settings
from .app import create_app


@dataclass(frozen=True)
class Opening:
    """Open a replica; picklable, to be sent to another process or machine.

    settings: shared. least, most: bounds of the number of replicas. threads: per CPU worker; the bytes of a
    video depend on it. token, allowed_hosts: see `create_app`.
    """

    settings: Settings
    least: int
    most: int
    threads: str
    token: str | None = None
    allowed_hosts: frozenset[str] = frozenset()

    def check(self) -> None:
        """Raise RunError if a server uses the folder alone, before any replica starts."""
        JobService(self.settings).__exit__()

    @contextmanager
    def __call__(self) -> Iterator[OpenReplica]:
        """Run a job service with loaded models, and its API, for the block. Raises RunError on failure."""
        os.environ["OMP_NUM_THREADS"] = self.threads  # inherited by workers
        with JobService(self.settings) as jobs:
            jobs.wait_until_ready()
            yield OpenReplica(create_app(jobs, self.token, self.allowed_hosts), jobs, self.least, self.most)


@dataclass(frozen=True)
class OpenReplica:
    """The application and its service."""

    app: FastAPI
    service: JobService
    least: int
    most: int

    def wanted(self) -> int:
        """Return the number of replicas for the folder's waiting and running jobs."""
        counts = self.service.store.counts()
        depth = counts.get("queued", 0) + counts.get("in_progress", 0)
        return replicas_for(depth, self.service.settings.workers, self.least, self.most)


def replicas_for(depth: int, workers: int, least: int, most: int) -> int:
    """Return how many replicas, within bounds, let no job wait.

    depth: jobs queued or running; workers: per replica.
    """
    return min(most, max(least, -(-depth // workers)))
