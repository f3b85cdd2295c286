"""Jobs in an SQLite file that servers and workers share. Every change is one transaction.

A killed process leaves the file as of its last transaction. A job in progress has the number of its worker's
place (`slot`); the worker holds that place's file lock, which the operating system releases when it dies (see
`worker`). So there are no leases that expire and no clocks that must agree.
"""

from __future__ import annotations

import builtins
import functools
import json
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ..config import Request
from ..video.rates import Rate, rate_to_json
from .database import Database
from .job import Conflict, Job, Key, Kind, QueueFull, Status
from .room import StorageError, StorageFull
from .rows import NEXT_REVISION, add_to_total, job_of, one, update
from .schema import prepare

_FIRST_PLACE = 1000  # lower ones belong to a server that does not share its folder
_WAITING = "FROM jobs WHERE status = 'queued' AND deleted = 0 ORDER BY number LIMIT 1"
_EXPIRED = "FROM jobs WHERE deleted = 0 AND expires_at < ?"
_GONE = "FROM jobs WHERE deleted = 1 AND status != 'in_progress'"
Method = TypeVar("Method", bound=Callable[..., Any])


def even_if_full(method: Method) -> Method:
    """Let a method of the store use the reserve on a full disk, because it ends something or frees space."""

    @functools.wraps(method)
    def trying(self: JobStore, *arguments: Any, **named: Any) -> Any:
        try:
            return method(self, *arguments, **named)
        except StorageFull:
            self._database.make_room()
            return method(self, *arguments, **named)

    return trying  # type: ignore[return-value]


Size = tuple[int, int, Rate, int]
"""Width, height, frames a second, and frames of the whole video."""


class JobStore:
    """The jobs in the file at `path`, created if missing. Thread-safe.

    keep_seconds: after which an ended job expires; None never. durable, shared, and errors of all methods:
    see `Database`.
    """

    def __init__(
        self, path: Path, keep_seconds: float | None = None, durable: bool = True, shared: bool = False
    ):
        self._path, self._keep_seconds = path, keep_seconds
        self._database = database = Database(path, durable, shared)
        self.writing, self.reading = database.writing, database.reading
        self.take_reserve, self.close = database.take_reserve, database.close
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    @even_if_full
    def _prepare(self) -> None:
        prepare(self._path, self._database)

    def check(self) -> None:
        """Check the whole file. Raises StorageError if it is damaged."""
        found = self._rows("PRAGMA quick_check(1)")[0][0]
        if found != "ok":
            raise StorageError(f"{self._path}: is damaged ({str(found).splitlines()[-1]})")

    def add(
        self,
        id: str,
        kind: Kind,
        model: str,
        request: Request,
        size: Size,
        source: str | None,
        limit: int,
        key: Key | None = None,
    ) -> Job:
        """Append a job to the queue and return it, or the existing job of the same key.

        Raises QueueFull if `limit` jobs wait, Conflict if the key was used for another request.
        """
        with self.writing() as db:
            known = self._of_key(db, key)
            if known is not None:
                return known
            if db.execute("SELECT COUNT(*) FROM jobs WHERE status = 'queued'").fetchone()[0] >= limit:
                raise QueueFull(limit)
            width, height, fps, frames = size
            about = (id, kind, model, json.dumps(request.to_json()), source, time.time())
            named = (key.name, key.digest) if key else (None, None)
            db.execute(
                "INSERT INTO jobs (id, kind, model, request, source, created_at, key, key_digest, width,"
                f" height, fps, frames_total, revision) VALUES ({'?, ' * 12}{NEXT_REVISION})",
                (*about, *named, width, height, rate_to_json(fps), frames),
            )
            db.execute("DELETE FROM begun WHERE name = ?", (id,))
            add_to_total(db, "jobs_created")
            return one(db, id)

    def of_key(self, key: Key | None) -> Job | None:
        """Return the job of a key, None without one.

        Raises Conflict if the key was used for another request.
        """
        with self.reading() as db:
            return self._of_key(db, key)

    def get(self, id: str) -> Job:
        """Return a job. Raises NoSuchJob."""
        with self.reading() as db:
            return one(db, id)

    def list(
        self, limit: int, after: str | None = None, newest_first: bool = True
    ) -> tuple[Sequence[Job], bool]:
        """Return up to `limit` jobs by age, starting after the job `after`, and whether there are more.

        Raises NoSuchJob.
        """
        sign, order = ("<", "DESC") if newest_first else (">", "ASC")
        where, values = "deleted = 0", []
        if after is not None:
            where, values = f"{where} AND number {sign} ?", [self.get(after).number]
        sql = f"SELECT * FROM jobs WHERE {where} ORDER BY number {order} LIMIT ?"
        rows = self._rows(sql, *values, limit + 1)
        return [job_of(row) for row in rows[:limit]], len(rows) > limit

    def changed_since(self, revision: int) -> dict[str, int]:
        """Return id -> revision of the jobs that changed after a revision."""
        where = "revision > ? AND typeof(revision) = 'integer'"
        return dict(self._rows(f"SELECT id, revision FROM jobs WHERE {where}", revision))

    def ahead(self, job: Job) -> int:
        """Return the number of older waiting jobs; 0 if this one does not wait."""
        if job.status != "queued":
            return 0
        where = "status = 'queued' AND deleted = 0 AND number < ?"
        return self._rows(f"SELECT COUNT(*) FROM jobs WHERE {where}", job.number)[0][0]

    def counts(self) -> dict[str, int]:
        """Return the number of jobs by status."""
        return dict(self._rows("SELECT status, COUNT(*) FROM jobs WHERE deleted = 0 GROUP BY status"))

    def totals(self) -> dict[str, float]:
        """Return the counters."""
        return dict(self._rows("SELECT name, value FROM totals WHERE typeof(value) = 'real'"))

    @even_if_full
    def cancel(self, id: str) -> Job:
        """Cancel a waiting job, tell one in progress to stop; leave an ended one as it is."""
        with self.writing() as db:
            job = one(db, id)
            if job.status == "queued":
                self._end(db, id, "cancelled")
            elif job.status == "in_progress":
                update(db, id, cancelling=1)
            return one(db, id)

    @even_if_full
    def delete(self, id: str) -> None:
        """Hide a job and tell it to stop; `deleted` and `forget` do the rest."""
        with self.writing() as db:
            one(db, id)
            update(db, id, deleted=1, cancelling=1, key=None)
            db.execute("UPDATE jobs SET status = 'cancelled' WHERE id = ? AND status = 'queued'", (id,))

    @even_if_full
    def delete_expired(self, now: float) -> None:
        """Delete the jobs that have expired."""
        with self.writing() as db:
            for row in db.execute(f"SELECT id {_EXPIRED}", (now,)).fetchall():
                update(db, row["id"], deleted=1, key=None)

    def has_expired(self, now: float) -> bool:
        """Return whether `delete_expired` would find something; only reads."""
        return bool(self._rows(f"SELECT 1 {_EXPIRED} LIMIT 1", now))

    def deleted(self) -> Sequence[str]:
        """Return ids of deleted jobs that no worker holds: delete their folders, then `forget` them."""
        return [row["id"] for row in self._rows(f"SELECT id {_GONE}")]

    @even_if_full
    def forget(self, id: str) -> None:
        """Remove the row of a deleted job."""
        with self.writing() as db:
            db.execute(f"DELETE {_GONE} AND id = ?", (id,))

    def ids(self) -> set[str]:
        """Return the ids of all jobs, including deleted ones."""
        return {row["id"] for row in self._rows("SELECT id FROM jobs")}

    def begin(self, name: str) -> None:
        """Record the name of a file or folder that is about to be created.

        A later start may delete what a kill left of it.
        """
        with self.writing() as db:
            db.execute("INSERT INTO begun VALUES (?)", (name,))

    def begun(self) -> set[str]:
        """Return the names recorded by `begin` and not settled."""
        return {row["name"] for row in self._rows("SELECT name FROM begun")}

    @even_if_full
    def settle(self, name: str) -> None:
        """Forget a recorded name: the file is gone or belongs to a job."""
        with self.writing() as db:
            db.execute("DELETE FROM begun WHERE name = ?", (name,))

    def change_prompt(self, id: str, prompt: str, limit: int, event: str | None = None) -> int:
        """Store a new prompt for a job; return the number of the change.

        event: a client's name for the change; sending it again has no effect. Raises Conflict if the job has
        ended, was changed `limit` times, or the event came with another prompt.
        """
        with self.writing() as db:
            job = one(db, id)
            known = db.execute(
                "SELECT number, prompt FROM changes WHERE job = ? AND event = ?", (id, event)
            ).fetchone()
            if known is not None and known["prompt"] == prompt:
                return known["number"]
            if known is not None:
                raise Conflict(f"the event {event!r} came with another prompt before; take a new name")
            if job.ended or job.cancelling:
                state = job.status if job.ended else "being cancelled"
                raise Conflict(f"{id} is {state}; nothing more is made of it")
            number = db.execute(
                "SELECT IFNULL(MAX(number), 0) + 1 FROM changes WHERE job = ?", (id,)
            ).fetchone()[0]
            if number > limit:
                raise Conflict(f"the prompt of {id} was changed {limit} times already")
            db.execute("INSERT INTO changes VALUES (?, ?, ?, ?)", (id, number, prompt, event))
            update(db, id)
            return number

    def events(self, id: str) -> dict[int, str]:
        """Return number -> event name of a job's prompt changes that have one."""
        return dict(self._rows("SELECT number, event FROM changes WHERE job = ? AND event IS NOT NULL", id))

    def new_prompt(self, id: str, after: int) -> tuple[int, str] | None:
        """Return number and text of the newest prompt change after the number `after`, or None."""
        where = "job = ? AND number > ? ORDER BY number DESC LIMIT 1"
        rows = self._rows(f"SELECT number, prompt FROM changes WHERE {where}", id, after)
        return tuple(rows[0]) if rows else None

    def claim(self, slot: int) -> Job | None:
        """Assign the longest waiting job to the worker in a place and return it; None if none waits."""
        if not self._rows(f"SELECT 1 {_WAITING}"):
            return None
        with self.writing() as db:
            while (row := db.execute(f"SELECT * {_WAITING}").fetchone()) is not None:
                id = row["id"]
                if (job := job_of(row)).ended:  # its row is damaged: try the next one
                    self._end(db, id, "failed", job.error_code, job.error_message)
                    continue
                db.execute(
                    "UPDATE jobs SET tries = tries + 1, started_at = IFNULL(started_at, ?) WHERE id = ?",
                    (time.time(), id),
                )
                update(db, id, status="in_progress", slot=slot)
                return one(db, id)
            return None

    @even_if_full
    def release(self, id: str) -> None:
        """Put a job back into the queue without counting a try: its worker was told to end."""
        with self.writing() as db:
            db.execute("UPDATE jobs SET tries = MAX(0, tries - 1) WHERE id = ?", (id,))
            update(db, id, status="queued", slot=None)

    def places_at_work(self) -> set[int]:
        """Return the places of the jobs in progress."""
        return {row["slot"] for row in self._rows("SELECT slot FROM jobs WHERE status = 'in_progress'")}

    @even_if_full
    def take_back(self, slot: int, tries: int) -> None:
        """Requeue the jobs of a free place at their old position; fail those begun `tries` times."""
        with self.writing() as db:
            for row in db.execute(
                "SELECT * FROM jobs WHERE status = 'in_progress' AND slot IS ?", (slot,)
            ).fetchall():
                if row["deleted"]:
                    self._end(db, row["id"], "cancelled")
                elif row["tries"] >= tries:
                    message = f"its worker ended {row['tries']} times without a new frame"
                    self._end(db, row["id"], "failed", "worker_died", message)
                else:
                    update(db, row["id"], status="queued", slot=None)

    def stopped(self, id: str) -> bool:
        """Return whether a job was told to stop."""
        rows = self._rows("SELECT cancelling FROM jobs WHERE id = ?", id)
        return not rows or bool(rows[0]["cancelling"])

    def report(self, id: str, **values: int | float | str) -> None:
        """Set columns of a job in progress. More frames than ever before reset its tries."""
        with self.writing() as db:
            if "frames_done" in values:
                done = values["frames_done"]
                db.execute(
                    "UPDATE jobs SET tries = 0, reached = ? WHERE id = ? AND reached < ?", (done, id, done)
                )
            update(db, id, **values)

    @even_if_full
    def end(self, id: str, status: Status, code: str | None = None, message: str | None = None) -> None:
        """Set the final status of a job; code, message: why it failed."""
        with self.writing() as db:
            self._end(db, id, status, code, message)

    def count(self, name: str, by: float) -> None:
        """Add to a counter."""
        with self.writing() as db:
            add_to_total(db, name, by)

    def _end(
        self,
        db: sqlite3.Connection,
        id: str,
        status: Status,
        code: str | None = None,
        message: str | None = None,
    ) -> None:
        now = time.time()
        expires = now + self._keep_seconds if self._keep_seconds is not None else None
        times = {"completed_at": now, "expires_at": expires}
        update(db, id, status=status, error_code=code, error_message=message, slot=None, **times)
        add_to_total(db, f"jobs_{status}")

    @even_if_full
    def worker_is(self, slot: int, pid: int, ready: bool) -> None:
        """Record the process in a place, and whether it has loaded its model."""
        with self.writing() as db:
            db.execute("INSERT OR REPLACE INTO workers VALUES (?, ?, ?)", (slot, pid, int(ready)))

    def ready_workers(self) -> dict[int, int]:
        """Return place -> process id of the workers that have loaded their models."""
        return dict(self._rows("SELECT slot, pid FROM workers WHERE ready = 1"))

    @even_if_full
    def new_places(self, count: int) -> range:
        """Return `count` numbers of places that were never used before."""
        with self.writing() as db:
            add_to_total(db, "places", count)
            end = _FIRST_PLACE + int(
                db.execute("SELECT value FROM totals WHERE name = 'places'").fetchone()[0]
            )
            return range(end - count, end)

    def _rows(self, sql: str, *values: object) -> builtins.list[Any]:
        with self.reading() as db:
            return db.execute(sql, values).fetchall()

    def _of_key(self, db: sqlite3.Connection, key: Key | None) -> Job | None:
        if key is None:
            return None
        row = db.execute("SELECT * FROM jobs WHERE key = ? AND deleted = 0", (key.name,)).fetchone()
        if row is None:
            return None
        if row["key_digest"] != key.digest:
            raise Conflict(
                f"the idempotency key {key.name!r} came with another request before; take a new one"
            )
        return job_of(row)
