"""Sessions and the servers of their clients; a session whose client is gone for good is stopped.

A session is held by the server that its client is connected to, known by that server's place, whose lock says that the server lives (see
`store`). A connection that breaks, or a server that dies, leaves the session to nobody; the client has some time to come back, to
whichever server, before one of them stops the job. Every server measures this time by itself.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress

from .files import ServiceFiles
from .store import JobStore, NoSuchJob, one

GRACE_SECONDS = 15.0  # that a client has to come back whose connection broke
LOST_SECONDS = (
    60.0  # after its server died: where a whole machine is lost, it takes some time until a client is told
)


class Sessions:
    """The sessions of a server that has a place."""

    def __init__(self, store: JobStore, files: ServiceFiles, place: int):
        self._store, self._files, self._place = store, files, place
        self._left: dict[
            tuple[str, int], float
        ] = {}  # job and turn -> since when nobody has it, as far as this server saw

    def take(self, id: str) -> int:
        """From now on this server has the session of a job; the number of its turn. `NoSuchJob` if there is none."""
        with self._store.writing() as db:
            one(db, id)
            db.execute(
                "INSERT INTO sessions VALUES (?, 1, ?) ON CONFLICT (job) DO UPDATE SET turn = turn + 1, place = excluded.place",
                (id, self._place),
            )
            return db.execute("SELECT turn FROM sessions WHERE job = ?", (id,)).fetchone()["turn"]

    def leave(self, id: str, turn: int) -> None:
        """The client's connection is gone. Nothing happens if it has come back meanwhile: then the turn is another's."""
        with self._store.writing() as db:
            db.execute("UPDATE sessions SET place = NULL WHERE job = ? AND turn = ?", (id, turn))

    def has(self, id: str) -> bool:
        """Return whether a job was begun as a session."""
        with self._store.reading() as db:
            return db.execute("SELECT 1 FROM sessions WHERE job = ?", (id,)).fetchone() is not None

    def stop_deserted(self) -> None:
        """Stop the jobs whose clients did not come back in time. To be called again and again."""
        now, left = time.monotonic(), {}
        for id, turn, place in self._running():
            if place is not None and not self._files.is_vacant(place):
                continue
            since = left[id, turn] = self._left.get((id, turn), now)
            if now - since > (GRACE_SECONDS if place is None else LOST_SECONDS):
                with suppress(NoSuchJob):
                    self._store.cancel(id)
        self._left = left

    def _running(self) -> Sequence[tuple[str, int, int | None]]:
        """Job, turn and place of the sessions that still go on."""
        asked = "SELECT job, turn, place FROM sessions JOIN jobs ON jobs.id = sessions.job"
        going = "status IN ('queued', 'in_progress') AND cancelling = 0"
        with self._store.reading() as db:
            return [tuple(row) for row in db.execute(f"{asked} WHERE {going}")]
