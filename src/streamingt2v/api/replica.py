"""One of several servers over one folder: what each process of them opens, and how many of them a queue is worth."""

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
    """Opens a replica; it may be sent to another process or machine first.

    settings: shared. least, most: replicas that there may be. threads: of each worker on a CPU; the bytes of a video depend on it.
    token, allowed_hosts: as `create_app` has them.
    """

    settings: Settings
    least: int
    most: int
    threads: str
    token: str | None = None
    allowed_hosts: frozenset[str] = frozenset()

    def check(self) -> None:
        """RunError if a server has the folder to itself; said here rather than by each replica."""
        JobService(self.settings).__exit__()

    @contextmanager
    def __call__(self) -> Iterator[OpenReplica]:
        """A job service and the API on it, for the time of the block; its models are in memory. RunError if that cannot be."""
        os.environ["OMP_NUM_THREADS"] = self.threads  # workers are given what this process has
        with JobService(self.settings) as jobs:
            jobs.wait_until_ready()
            yield OpenReplica(create_app(jobs, self.token, self.allowed_hosts), jobs, self.least, self.most)


@dataclass(frozen=True)
class OpenReplica:
    """The application, and the service that says how much there is to do."""

    app: FastAPI
    service: JobService
    least: int
    most: int

    def wanted(self) -> int:
        """Return how many replicas the jobs are worth that wait and are made now, in all of the folder."""
        counts = self.service.store.counts()
        depth = counts.get("queued", 0) + counts.get("in_progress", 0)
        return replicas_for(depth, self.service.settings.workers, self.least, self.most)


def replicas_for(depth: int, workers: int, least: int, most: int) -> int:
    """Return how many replicas of so many workers let no job wait, within least and most. depth: jobs queued or running."""
    return min(most, max(least, -(-depth // workers)))
