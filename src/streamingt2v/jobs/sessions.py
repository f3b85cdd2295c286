"""Sessions and the servers of their clients; stop a session whose client does not return.

The server that a client is connected to holds the session, known by its place; the place's lock shows that
the server is alive (see `store`). After a broken connection or a server's death the client has some time to
reconnect to any server; then one of them stops the job. Every server measures this time on its own clock.
"""

import time
from collections.abc import Sequence
from contextlib import suppress

from .files import ServiceFiles
from .job import NoSuchJob
from .rows import one
from .store import JobStore

GRACE_SECONDS = 15.0  # to reconnect after a broken connection
LOST_SECONDS = 60.0  # after the server died: if the whole machine is lost, the client learns of it late


class Sessions:
    """The sessions of the server in a place."""

    def __init__(self, store: JobStore, files: ServiceFiles, place: int):
        self._store, self._files, self._place = store, files, place
        self._left: dict[tuple[str, int], float] = {}  # (job, turn) -> when this server saw it unheld

    def take(self, id: str) -> int:
        """Hold the session of a job on this server; return the number of its turn. Raises NoSuchJob."""
        with self._store.writing() as db:
            one(db, id)
            db.execute(
                "INSERT INTO sessions VALUES (?, 1, ?) ON CONFLICT (job)"
                " DO UPDATE SET turn = turn + 1, place = excluded.place",
                (id, self._place),
            )
            return db.execute("SELECT turn FROM sessions WHERE job = ?", (id,)).fetchone()["turn"]

    def leave(self, id: str, turn: int) -> None:
        """Record that the client has disconnected, unless it has reconnected: then the turn is another."""
        with self._store.writing() as db:
            db.execute("UPDATE sessions SET place = NULL WHERE job = ? AND turn = ?", (id, turn))

    def has(self, id: str) -> bool:
        """Return whether a job was created by a session."""
        with self._store.reading() as db:
            return db.execute("SELECT 1 FROM sessions WHERE job = ?", (id,)).fetchone() is not None

    def stop_deserted(self) -> None:
        """Cancel the jobs whose clients did not return in time. Call regularly."""
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
        """Return job, turn and place of the sessions whose jobs have not ended."""
        asked = "SELECT job, turn, place FROM sessions JOIN jobs ON jobs.id = sessions.job"
        going = "status IN ('queued', 'in_progress') AND cancelling = 0"
        with self._store.reading() as db:
            return [tuple(row) for row in db.execute(f"{asked} WHERE {going}")]
