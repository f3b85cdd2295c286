"""Keeps the workers of a service running, gives up nobody's jobs, and keeps the disk clean, in a thread of its own."""

from __future__ import annotations

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
LONGEST_PAUSE = 30.0  # before a worker that ends at once is started again
END_SECONDS = 25.0  # that workers get to put their jobs back


@dataclass
class _Place:
    """One worker's place: its process, since when, and how long to wait with the next one."""

    process: subprocess.Popen
    started: float
    pause: float = 0.0


class Supervisor:
    """Starts a worker at each of the places and starts it again when it ends. `start`, then `stop`.

    It also does what any server of the folder may do for all: jobs of workers that are gone, its own or not, go back to the queue, those of
    clients that are gone are stopped, and what is deleted goes from the disk.
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
        """Start the workers."""
        for slot in self._slots:
            self._places[slot] = _Place(self._spawn(slot), time.monotonic())
        self._thread.start()

    def stop(self) -> None:
        """End the workers; what they work on goes back to the queue."""
        self._stopping.set()
        if self._thread.is_alive():  # it is not where the service was never entered
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
        """Every worker lives and has its model in memory."""
        ready = self._store.ready_workers()
        return all(
            place.process.poll() is None and ready.get(slot) == place.process.pid
            for slot, place in self._places.items()
        )

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return [place.process.pid for place in self._places.values()]

    def failed(self) -> bool:
        """A worker has ended by itself before it was ever ready: it cannot load its model."""
        ready = self._store.ready_workers()
        return any(
            place.process.poll() == 2 and ready.get(slot) != place.process.pid
            for slot, place in self._places.items()
        )

    def _run(self) -> None:
        calm = {step.__name__: Patience(step.__name__) for step in (self._look_after_all, *self._housework)}
        while not self._stopping.wait(LOOK_SECONDS):
            for step in (self._look_after_all, *self._housework):
                if calm[
                    step.__name__
                ].is_over:  # what fails is tried less and less often, and keeps nothing else from being done
                    with calm[step.__name__].trying():
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
        log.warning("worker %d ended with %s; it is started again", slot, place.process.returncode)
        self.restarts += 1
        with suppress(OSError):
            place.process.stdin.close()  # type: ignore[union-attr]
        self._places[slot] = _Place(self._spawn(slot), now, min(LONGEST_PAUSE, max(0.5, 2 * place.pause)))

    def _spawn(self, slot: int) -> subprocess.Popen:
        # a session of its own: signals of the terminal reach the server alone, which ends its workers
        command = [sys.executable, "-m", "streamingt2v.jobs.worker", str(slot)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
        )
        assert process.stdin is not None, "it is a pipe"
        with suppress(BrokenPipeError):  # it ended at once, and is started again
            process.stdin.write(self._settings.to_json().encode() + b"\n")
            process.stdin.flush()
        return process

    def take_back(self) -> None:
        """Jobs of workers that are gone go back to the queue."""
        for slot in self._store.places_at_work():
            with self._files.vacant(slot) as vacant:
                if vacant:
                    self._store.take_back(slot, self._settings.tries)

    def clean(self) -> None:
        """Delete what has expired or was deleted."""
        now = time.time()
        if self._store.has_expired(now):
            self._store.delete_expired(now)
        trouble: StreamingT2VError | None = None
        for id in self._store.deleted():
            try:
                if ID.fullmatch(id):  # else its row is damaged, and nothing on the disk is its own
                    self._files.delete(id)
                self._store.forget(id)
            except StreamingT2VError as error:
                trouble = error
        if trouble is not None:
            raise trouble
