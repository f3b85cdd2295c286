"""Rows of the table of jobs as `Job`s, whatever they hold, and changes of them."""

from __future__ import annotations

import json
import math
import sqlite3
from typing import Any

from ..config import Request
from ..config.values import check_types
from ..errors import StreamingT2VError
from ..video.rates import rate_of
from .job import Job

NEXT_REVISION = "IFNULL((SELECT revision + 1 FROM jobs WHERE typeof(revision) = 'integer' ORDER BY revision DESC LIMIT 1), 1)"
_HIDDEN = {"deleted", "slot", "tries", "reached", "key", "key_digest"}
_DAMAGED = "what is kept of it is damaged"


class NoSuchJob(StreamingT2VError):
    """There is no job of this id, or not any more."""


def one(db: sqlite3.Connection, id: str) -> Job:
    """A job that is not deleted. NoSuchJob if there is none."""
    row = db.execute("SELECT * FROM jobs WHERE id = ? AND deleted = 0", (id,)).fetchone()
    if row is None:
        raise NoSuchJob(f"there is no video {id!r}")
    return job_of(row)


def job_of(row: sqlite3.Row) -> Job:
    """The job of a row; one that has failed where the row is damaged, so that it can be listed and deleted beside the others."""
    values: dict[str, Any] = {name: row[name] for name in row.keys() if name not in _HIDDEN}  # noqa: SIM118 (a Row is no dict)
    try:
        request, notes = Request.from_json(json.loads(values["request"])), tuple(json.loads(values["notes"]))
        job = Job(
            **values
            | {
                "request": request,
                "fps": rate_of(values["fps"]),
                "cancelling": bool(values["cancelling"]),
                "notes": notes,
            }
        )
        check_types(Job, vars(job))
        if not all(isinstance(note, str) for note in job.notes):
            raise ValueError("a note that is no text")
        json.dumps(
            [request.to_json(), notes], ensure_ascii=False
        ).encode()  # halves of characters cannot be told to anybody
        if not all(math.isfinite(value) for value in values.values() if isinstance(value, float)):
            raise ValueError("a time that it cannot be")
        if (
            min(job.width, job.height, job.frames_total) < 1
            or job.fps <= 0
            or min(job.frames_done, job.step, job.steps) < 0
        ):
            raise ValueError("a number that it cannot be")
        return job
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        RecursionError,
        OverflowError,
        StreamingT2VError,
    ):
        return _damaged(values)


def _damaged(values: dict[str, Any]) -> Job:
    number = values["number"] if isinstance(values["number"], int) else 0
    nothing: dict[str, Any] = {
        "source": None,
        "started_at": None,
        "completed_at": None,
        "expires_at": None,
        "first_seconds": None,
    }
    counts = {"frames_total": 1, "frames_done": 0, "step": 0, "steps": 0}
    revision = values["revision"] if isinstance(values["revision"], int) else 0
    return Job(
        id=str(values["id"]),
        number=number,
        kind="create",
        model=str(values["model"]),
        request=Request(_DAMAGED, 1),
        status="failed",
        revision=revision,
        width=1,
        height=1,
        fps=1,
        cancelling=False,
        created_at=0.0,
        worked_seconds=0.0,
        notes=(),
        error_code="damaged",
        error_message=_DAMAGED,
        **nothing,
        **counts,
    )


def update(db: sqlite3.Connection, id: str, **values: Any) -> None:
    """Set columns of a job, and its revision."""
    columns = ", ".join([f"revision = {NEXT_REVISION}", *(f"{name} = ?" for name in values)])
    db.execute(f"UPDATE jobs SET {columns} WHERE id = ?", (*values.values(), id))


def add_to_total(db: sqlite3.Connection, name: str, by: float = 1) -> None:
    db.execute(
        "INSERT INTO totals VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
        (name, by),
    )
