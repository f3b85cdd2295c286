"""Jobs in an SQLite file: the one truth that servers and workers share. Every method is one transaction.

A process that is killed leaves the file as of its last transaction. Who works on a job is known by a number of a place (`slot`); that a
place is taken is known by a lock of the operating system (see `worker`), which no kill leaves behind. So there are no leases that run out
and no clocks that must agree.
"""

from __future__ import annotations

import functools
import json
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..config import Request
from ..errors import StreamingT2VError
from ..video.rates import Rate, rate_to_json
from .database import Database
from .job import Job, Kind, Status
from .room import StorageError, StorageFull
from .rows import NEXT_REVISION, NoSuchJob, add_to_total, job_of, one, update
from .schema import prepare

_FIRST_PLACE = 1000  # those below are of a server that has the folder to itself
_WAITING = "FROM jobs WHERE status = 'queued' AND deleted = 0 ORDER BY number LIMIT 1"
Method = TypeVar("Method", bound=Callable[..., Any])


class QueueFull(StreamingT2VError):
    """As many jobs wait, or connections are open, as may; try again later."""

    def __init__(self, most: int, what: str = "jobs wait"):
        super().__init__(f"{most} {what} already; try again later")


class Conflict(StreamingT2VError):
    """The job is not in a state, or the key not of the request, that this could be done with."""


@dataclass(frozen=True)
class Key:
    """A client's word for one request, so that sending it twice makes one job; digest: of the request that it came with."""

    name: str
    digest: str


def even_if_full(method: Method) -> Method:
    """A method of the store that must not fail for want of room: it ends something, or makes room. It is tried again with the reserve."""

    @functools.wraps(method)
    def trying(self: JobStore, *arguments: Any, **named: Any) -> Any:
        try:
            return method(self, *arguments, **named)
        except StorageFull:
            self._database.make_room()
            return method(self, *arguments, **named)

    return trying  # type: ignore[return-value]


Size = tuple[int, int, Rate, int]
"""Width, height, frames a second, and frames of a whole video."""


class JobStore:
    """The jobs in the file at `path`, made if it is missing. Any thread may call.

    keep_seconds: until a job that has ended expires, None for never. durable, shared: as `Database` has them, with its errors, everywhere.
    """

    def __init__(
        self, path: Path, keep_seconds: float | None = None, durable: bool = True, shared: bool = False
    ):
        self._path, self._keep_seconds, self._database = path, keep_seconds, Database(path, durable, shared)
        self.writing, self.reading = self._database.writing, self._database.reading
        self.take_reserve = self._database.take_reserve
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connections."""
        self._database.close()

    @even_if_full
    def _prepare(self) -> None:
        prepare(self._path, self._database)

    def check(self) -> None:
        """StorageError if the file is damaged; looks at all of it."""
        with self.reading() as db:
            found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise StorageError(f"{self._path}: is damaged ({str(found).splitlines()[-1]})")

    def add(self, id: str, kind: Kind, model: str, request: Request, size: Size, source: str | None, limit: int,
            key: Key | None = None) -> Job:  # fmt: skip
        """A new job at the end of the queue; the one there is already for a key. size: width, height, fps, frames of the video.

        QueueFull if `limit` jobs wait; Conflict if the key came with another request.
        """
        with self.writing() as db:
            known = self._of_key(db, key)
            if known is not None:
                return known
            if db.execute("SELECT COUNT(*) FROM jobs WHERE status = 'queued'").fetchone()[0] >= limit:
                raise QueueFull(limit)
            asked = json.dumps(request.to_json())
            named = (key.name, key.digest) if key else (None, None)
            width, height, fps, frames = size
            db.execute(
                "INSERT INTO jobs (id, kind, model, request, width, height, fps, frames_total, source, created_at, key, key_digest,"
                f" revision) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, {NEXT_REVISION})",
                (
                    id,
                    kind,
                    model,
                    asked,
                    width,
                    height,
                    rate_to_json(fps),
                    frames,
                    source,
                    time.time(),
                    *named,
                ),
            )
            db.execute("DELETE FROM begun WHERE name = ?", (id,))
            add_to_total(db, "jobs_created")
            return one(db, id)

    def of_key(self, key: Key | None) -> Job | None:
        """The job that was made with a key. Conflict if it came with another request."""
        with self.reading() as db:
            return self._of_key(db, key)

    def get(self, id: str) -> Job:
        """NoSuchJob if there is none."""
        with self.reading() as db:
            return one(db, id)

    def list(
        self, limit: int, after: str | None = None, newest_first: bool = True
    ) -> tuple[Sequence[Job], bool]:
        """Up to `limit` jobs by age, those that follow the job `after`, and whether there are more. NoSuchJob if that one is gone."""
        sign, order = ("<", "DESC") if newest_first else (">", "ASC")
        where, values = "deleted = 0", []
        with self.reading() as db:
            if after is not None:
                where, values = f"{where} AND number {sign} ?", [one(db, after).number]
            rows = db.execute(
                f"SELECT * FROM jobs WHERE {where} ORDER BY number {order} LIMIT ?", (*values, limit + 1)
            ).fetchall()
        return [job_of(row) for row in rows[:limit]], len(rows) > limit

    def changed_since(self, revision: int) -> dict[str, int]:
        """Id -> revision of the jobs that changed after a revision."""
        with self.reading() as db:
            rows = db.execute(
                "SELECT id, revision FROM jobs WHERE revision > ? AND typeof(revision) = 'integer'",
                (revision,),
            )
            return {row["id"]: row["revision"] for row in rows}

    def ahead(self, job: Job) -> int:
        """How many jobs wait that are older than this one; 0 if it does not wait itself."""
        if job.status != "queued":
            return 0
        where = "status = 'queued' AND deleted = 0 AND number < ?"
        with self.reading() as db:
            return db.execute(f"SELECT COUNT(*) FROM jobs WHERE {where}", (job.number,)).fetchone()[0]

    def counts(self) -> dict[str, int]:
        """How many jobs there are of each status."""
        with self.reading() as db:
            return dict(
                db.execute("SELECT status, COUNT(*) FROM jobs WHERE deleted = 0 GROUP BY status").fetchall()
            )

    def totals(self) -> dict[str, float]:
        """What was counted since the file was made."""
        with self.reading() as db:
            return dict(db.execute("SELECT name, value FROM totals WHERE typeof(value) = 'real'").fetchall())

    @even_if_full
    def cancel(self, id: str) -> Job:
        """A waiting job is cancelled, one in progress told to stop; nothing happens to one that has ended."""
        with self.writing() as db:
            job = one(db, id)
            if job.status == "queued":
                self._end(db, id, "cancelled")
            elif job.status == "in_progress":
                update(db, id, cancelling=1)
            return one(db, id)

    @even_if_full
    def delete(self, id: str) -> None:
        """Out of everybody's sight; one in progress is told to stop. What is left of it is the housekeeping's, see `deleted`."""
        with self.writing() as db:
            one(db, id)
            update(db, id, deleted=1, cancelling=1, key=None)
            db.execute("UPDATE jobs SET status = 'cancelled' WHERE id = ? AND status = 'queued'", (id,))

    @even_if_full
    def delete_expired(self, now: float) -> None:
        """Delete the jobs whose time is over."""
        with self.writing() as db:
            for row in db.execute(
                "SELECT id FROM jobs WHERE deleted = 0 AND expires_at < ?", (now,)
            ).fetchall():
                update(db, row["id"], deleted=1, key=None)

    def has_expired(self, now: float) -> bool:
        """Whether `delete_expired` would find something; only reads."""
        with self.reading() as db:
            return (
                db.execute(
                    "SELECT 1 FROM jobs WHERE deleted = 0 AND expires_at < ? LIMIT 1", (now,)
                ).fetchone()
                is not None
            )

    def deleted(self) -> Sequence[str]:
        """Ids of deleted jobs that nobody works on: their folders can go, then `forget` them."""
        with self.reading() as db:
            return [
                row["id"]
                for row in db.execute("SELECT id FROM jobs WHERE deleted = 1 AND status != 'in_progress'")
            ]

    @even_if_full
    def forget(self, id: str) -> None:
        """Take a deleted job out of the file."""
        with self.writing() as db:
            db.execute("DELETE FROM jobs WHERE id = ? AND deleted = 1 AND status != 'in_progress'", (id,))

    def ids(self) -> set[str]:
        """Of all jobs, deleted ones that are not forgotten included."""
        with self.reading() as db:
            return {row["id"] for row in db.execute("SELECT id FROM jobs")}

    def begin(self, name: str) -> None:
        """Note a file or folder that is about to be made: what a kill leaves of it is ours to delete."""
        with self.writing() as db:
            db.execute("INSERT INTO begun VALUES (?)", (name,))

    def begun(self) -> set[str]:
        """What was noted by `begin` and is not `settled`."""
        with self.reading() as db:
            return {row["name"] for row in db.execute("SELECT name FROM begun")}

    @even_if_full
    def settle(self, name: str) -> None:
        """What was begun is gone, or belongs to a job."""
        with self.writing() as db:
            db.execute("DELETE FROM begun WHERE name = ?", (name,))

    def change_prompt(self, id: str, prompt: str, limit: int, event: str | None = None) -> int:
        """Note a new prompt for a job that has not ended; its number. Conflict if it has, or was changed `limit` times.

        event: a client's name for the change; noted once, however often it is sent. Conflict if it came with another prompt before.
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
                raise Conflict(
                    f"{id} is {'being cancelled' if job.cancelling and not job.ended else job.status}; nothing more is made of it"
                )
            number = db.execute(
                "SELECT IFNULL(MAX(number), 0) + 1 FROM changes WHERE job = ?", (id,)
            ).fetchone()[0]
            if number > limit:
                raise Conflict(f"the prompt of {id} was changed {limit} times already")
            db.execute("INSERT INTO changes VALUES (?, ?, ?, ?)", (id, number, prompt, event))
            update(db, id)
            return number

    def events(self, id: str) -> dict[int, str]:
        """Number -> client's name of the changes of a job's prompt that have one."""
        with self.reading() as db:
            rows = db.execute("SELECT number, event FROM changes WHERE job = ? AND event IS NOT NULL", (id,))
            return {row["number"]: row["event"] for row in rows}

    def new_prompt(self, id: str, after: int) -> tuple[int, str] | None:
        """Number and text of the newest change of a job's prompt, if there is one after that number."""
        with self.reading() as db:
            row = db.execute(
                "SELECT number, prompt FROM changes WHERE job = ? AND number > ? ORDER BY number DESC",
                (id, after),
            ).fetchone()
        return (row["number"], row["prompt"]) if row else None

    def claim(self, slot: int) -> Job | None:
        """The longest waiting job, now in progress by the worker of that place; None if none waits."""
        with self.reading() as db:
            if db.execute(f"SELECT 1 {_WAITING}").fetchone() is None:
                return None
        with self.writing() as db:
            while (row := db.execute(f"SELECT * {_WAITING}").fetchone()) is not None:
                id = row["id"]
                if (job := job_of(row)).ended:  # its row is damaged: the next one, then
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
        """Back to the queue, by a worker that was told to end, or had no room: this was no try."""
        with self.writing() as db:
            db.execute("UPDATE jobs SET tries = MAX(0, tries - 1) WHERE id = ?", (id,))
            update(db, id, status="queued", slot=None)

    def places_at_work(self) -> set[int]:
        """The places that jobs in progress are made at."""
        with self.reading() as db:
            return {
                row["slot"]
                for row in db.execute("SELECT DISTINCT slot FROM jobs WHERE status = 'in_progress'")
            }

    @even_if_full
    def take_back(self, slot: int, tries: int) -> None:
        """Jobs of a place that nobody has (any more) go back to the queue, in their old place; those begun `tries` times fail."""
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
        """Whether a job was told to stop."""
        with self.reading() as db:
            row = db.execute("SELECT cancelling FROM jobs WHERE id = ?", (id,)).fetchone()
        return row is None or bool(row["cancelling"])

    def report(self, id: str, **values: int | float | str) -> None:
        """How far a job is: columns and their values. More frames than it ever had make the tries forgotten."""
        with self.writing() as db:
            if "frames_done" in values:
                done = values["frames_done"]
                db.execute(
                    "UPDATE jobs SET tries = 0, reached = ? WHERE id = ? AND reached < ?", (done, id, done)
                )
            update(db, id, **values)

    @even_if_full
    def end(self, id: str, status: Status, code: str | None = None, message: str | None = None) -> None:
        """A job has ended; code, message: why it failed."""
        with self.writing() as db:
            self._end(db, id, status, code, message)

    def count(self, name: str, by: float) -> None:
        """Add to a total."""
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
        update(
            db,
            id,
            status=status,
            completed_at=now,
            expires_at=expires,
            error_code=code,
            error_message=message,
            slot=None,
        )
        add_to_total(db, f"jobs_{status}")

    @even_if_full
    def worker_is(self, slot: int, pid: int, ready: bool) -> None:
        """Note the process at a place, and whether it has its models in memory."""
        with self.writing() as db:
            db.execute("INSERT OR REPLACE INTO workers VALUES (?, ?, ?)", (slot, pid, int(ready)))

    def ready_workers(self) -> dict[int, int]:
        """Place -> process id of the workers that said they were ready."""
        with self.reading() as db:
            return {
                row["slot"]: row["pid"] for row in db.execute("SELECT slot, pid FROM workers WHERE ready = 1")
            }

    @even_if_full
    def new_places(self, count: int) -> range:
        """Numbers of so many places that nobody had before."""
        with self.writing() as db:
            add_to_total(db, "places", count)
            end = _FIRST_PLACE + int(
                db.execute("SELECT value FROM totals WHERE name = 'places'").fetchone()[0]
            )
            return range(end - count, end)

    def _of_key(self, db: sqlite3.Connection, key: Key | None) -> Job | None:
        row = (
            db.execute("SELECT * FROM jobs WHERE key = ? AND deleted = 0", (key.name,)).fetchone()
            if key
            else None
        )
        if row is None or key is None:
            return None
        if row["key_digest"] != key.digest:
            raise Conflict(
                f"the idempotency key {key.name!r} came with another request before; take a new one"
            )
        return job_of(row)


__all__ = ["Conflict", "JobStore", "Key", "NoSuchJob", "QueueFull", "one"]
