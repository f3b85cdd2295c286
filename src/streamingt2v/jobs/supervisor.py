"""Supervise a service's workers, requeue orphaned jobs and clean the disk, in a thread."""

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from ..errors import StreamingT2VError
from .files import ID, ServiceFiles
from .patience import Patience
from .sessions import Sessions
from .settings import Settings
from .store import JobStore

log = logging.getLogger(__name__)
LOOK_SECONDS = 0.1
LONGEST_PAUSE = 30.0  # before a worker that ends at once is restarted
WORKER = (sys.executable, "-m", "streamingt2v.jobs.worker")
END_SECONDS = 25.0  # for workers to release their jobs


@dataclass
class _Place:
    """A worker's process, its start time, and the pause before the next restart."""

    process: subprocess.Popen
    started: float
    pause: float = 0.0


class Supervisor:
    """Start a worker in each place and restart it when it ends. Call `start`, then `stop`.

    Any server of the folder also requeues the jobs of dead workers, cancels deserted sessions and deletes the
    files of deleted jobs.
    """

    def __init__(
        self,
        settings: Settings,
        store: JobStore,
        files: ServiceFiles,
        sessions: Sessions,
        places: Sequence[int],
    ):
        self._settings, self._store, self._files, self._sessions = settings, store, files, sessions
        self._slots = places
        self._stopping = threading.Event()
        self._places: dict[int, _Place] = {}
        self._housework = (self.take_back, self._sessions.stop_deserted, self.clean, self._store.take_reserve)
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self.restarts = 0

    def start(self) -> None:
        """Start the workers and the thread."""
        for slot in self._slots:
            self._places[slot] = _Place(self._spawn(slot), time.monotonic())
        self._thread.start()

    def stop(self) -> None:
        """End the workers; their jobs go back to the queue."""
        self._stopping.set()
        if self._thread.is_alive():  # not if the service was never entered
            self._thread.join()
        for place in self._places.values():
            with suppress(OSError):
                place.process.stdin.close()  # type: ignore[union-attr]
        deadline = time.monotonic() + END_SECONDS
        for place in self._places.values():
            try:
                place.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                place.process.kill()
                place.process.wait()

    @property
    def ready(self) -> bool:
        """Return whether every worker is alive and has loaded its model."""
        ready = self._store.ready_workers()
        return all(
            place.process.poll() is None and ready.get(slot) == place.process.pid
            for slot, place in self._places.items()
        )

    @property
    def pids(self) -> list[int]:
        """Return the process ids of the workers."""
        return [place.process.pid for place in self._places.values()]

    def failed(self) -> bool:
        """Return whether a worker ended before it was ready: it cannot load its model."""
        ready = self._store.ready_workers()
        return any(
            place.process.poll() == 2 and ready.get(slot) != place.process.pid
            for slot, place in self._places.items()
        )

    def _run(self) -> None:
        # a failing step pauses longer and longer, and does not hold up the others
        steps = [(step, Patience(step.__name__)) for step in (self._look_after_all, *self._housework)]
        while not self._stopping.wait(LOOK_SECONDS):
            for step, patience in steps:
                if patience.is_over:
                    with patience.trying():
                        step()

    def _look_after_all(self) -> None:
        for slot, place in self._places.items():
            self._look_after(slot, place)

    def _look_after(self, slot: int, place: _Place) -> None:
        now = time.monotonic()
        if place.process.poll() is None:
            if now - place.started > LONGEST_PAUSE:
                place.pause = 0.0
            return
        if now - place.started < place.pause:
            return
        log.warning("worker %d ended with %s; restarting it", slot, place.process.returncode)
        self.restarts += 1
        with suppress(OSError):
            place.process.stdin.close()  # type: ignore[union-attr]
        self._places[slot] = _Place(self._spawn(slot), now, min(LONGEST_PAUSE, max(0.5, 2 * place.pause)))

    def _spawn(self, slot: int) -> subprocess.Popen:
        # in its own session, so that the terminal's signals reach only the server, which ends its workers
        command = [*WORKER, str(slot)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
        )
        assert process.stdin is not None, "it is a pipe"
        with suppress(BrokenPipeError):  # it ended at once and will be restarted
            process.stdin.write(self._settings.to_json().encode() + b"\n")
            process.stdin.flush()
        return process

    def take_back(self) -> None:
        """Requeue the jobs of dead workers."""
        for slot in self._store.places_at_work():
            with self._files.vacant(slot) as vacant:
                if vacant:
                    self._store.take_back(slot, self._settings.tries)

    def clean(self) -> None:
        """Delete expired jobs, and the files of deleted ones."""
        now = time.time()
        if self._store.has_expired(now):
            self._store.delete_expired(now)
        trouble: StreamingT2VError | None = None
        for id in self._store.deleted():
            try:
                if ID.fullmatch(id):  # else the row is damaged and has no files
                    self._files.delete(id)
                self._store.forget(id)
            except StreamingT2VError as error:
                trouble = error
        if trouble is not None:
            raise trouble
