"""Convert rows of the table of jobs to `Job`s, even damaged ones, and change them."""

import json
import math
import sqlite3
from typing import Any

from ..config import Request
from ..config.values import check_types
from ..errors import StreamingT2VError
from ..video.rates import rate_of
from .job import Job, NoSuchJob

NEXT_REVISION = (
    "IFNULL((SELECT revision + 1 FROM jobs WHERE typeof(revision) = 'integer'"
    " ORDER BY revision DESC LIMIT 1), 1)"
)
_HIDDEN = {"deleted", "slot", "tries", "reached", "key", "key_digest"}
_DAMAGED = "its stored data is damaged"
_DAMAGE = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    RecursionError,
    OverflowError,
    StreamingT2VError,
)


def one(db: sqlite3.Connection, id: str) -> Job:
    """Return a job that is not deleted. Raises NoSuchJob."""
    row = db.execute("SELECT * FROM jobs WHERE id = ? AND deleted = 0", (id,)).fetchone()
    if row is None:
        raise NoSuchJob(f"there is no video {id!r}")
    return job_of(row)


def job_of(row: sqlite3.Row) -> Job:
    """Return the job of a row.

    A damaged row becomes a failed job, which can be listed and deleted like any other.
    """
    values: dict[str, Any] = {name: row[name] for name in row.keys() if name not in _HIDDEN}  # noqa: SIM118 (a Row is no dict)
    try:
        request, notes = Request.from_json(json.loads(values["request"])), tuple(json.loads(values["notes"]))
        read = {"request": request, "notes": notes, "fps": rate_of(values["fps"])}
        job = Job(**values | read | {"cancelling": bool(values["cancelling"])})
        _check(job)
        return job
    except _DAMAGE:
        return _damaged(values)


def _check(job: Job) -> None:
    """Raise one of `_DAMAGE` if a value is of a wrong type, out of range or not serializable."""
    check_types(Job, vars(job))
    if not all(isinstance(note, str) for note in job.notes):
        raise ValueError("notes")
    json.dumps([job.request.to_json(), job.notes], ensure_ascii=False).encode()  # fails on lone surrogates
    if not all(math.isfinite(value) for value in vars(job).values() if isinstance(value, float)):
        raise ValueError("times")
    if min(job.width, job.height, job.frames_total) < 1 or job.fps <= 0:
        raise ValueError("size")
    if min(job.frames_done, job.step, job.steps) < 0:
        raise ValueError("progress")


def _damaged(values: dict[str, Any]) -> Job:
    kept: dict[str, Any] = {name: str(values[name]) for name in ("id", "model")}
    for name in ("number", "revision"):
        kept[name] = values[name] if isinstance(values[name], int) else 0
    kept |= dict.fromkeys(("source", "stage", "started_at", "completed_at", "expires_at", "first_seconds"))
    kept |= dict.fromkeys(("width", "height", "fps", "frames_total"), 1)
    kept |= dict.fromkeys(("frames_done", "step", "steps", "created_at", "worked_seconds"), 0)
    return Job(
        **kept,
        kind="create",
        request=Request(_DAMAGED, 1),
        status="failed",
        cancelling=False,
        notes=(),
        error_code="damaged",
        error_message=_DAMAGED,
    )


def update(db: sqlite3.Connection, id: str, **values: Any) -> None:
    """Set columns of a job and its revision."""
    columns = ", ".join([f"revision = {NEXT_REVISION}", *(f"{name} = ?" for name in values)])
    db.execute(f"UPDATE jobs SET {columns} WHERE id = ?", (*values.values(), id))


def add_to_total(db: sqlite3.Connection, name: str, by: float = 1) -> None:
    db.execute(
        "INSERT INTO totals VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
        (name, by),
    )
