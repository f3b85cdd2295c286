"""Wake everybody who waits for a job to change, with one query for all of them."""

import asyncio
import threading
from contextlib import suppress
from weakref import WeakValueDictionary

from .job import Job
from .patience import Patience
from .store import JobStore

LOOK_SECONDS = 0.05
LONGEST_WAIT = 2.0  # then look whether the job was deleted


class Ending(Exception):
    """The server was told to end: waiting stops and streams break off."""


class Notices:
    """Call `start` in the event loop, then `change`, then `stop`.

    ending: set when the server is told to end.
    """

    def __init__(self, store: JobStore, ending: threading.Event):
        self._store, self._ending = store, ending
        self._waiting: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()  # while awaited
        self._seen = 0
        self._task: asyncio.Task | None = None

    async def start(self) -> None:
        """Begin to poll the store."""
        self._task = asyncio.create_task(self._look())

    async def stop(self) -> None:
        """Stop polling."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def change(self, job: Job, seconds: float = LONGEST_WAIT) -> Job:
        """Wait until the job changes or `seconds` pass; return it.

        Raises NoSuchJob if it was deleted, or Ending.
        """
        event = self._waiting.get(job.id) or asyncio.Event()
        self._waiting[job.id] = event
        now = self._store.get(job.id)
        if now.revision != job.revision:
            return now
        if not self._ending.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(event.wait(), seconds)
        if self._ending.is_set():
            raise Ending
        return self._store.get(job.id)

    async def _look(self) -> None:
        patience = Patience("looking for changes")
        while not self._ending.is_set():
            if patience.is_over:
                with patience.trying():
                    self._wake(self._store.changed_since(self._seen))
            await asyncio.sleep(LOOK_SECONDS)
        for event in self._waiting.values():
            event.set()

    def _wake(self, changed: dict[str, int]) -> None:
        for id, revision in changed.items():
            self._seen = max(self._seen, revision)
            event = self._waiting.pop(id, None)
            if event is not None:
                event.set()
