"""The tables of a service's database, and migrations from older versions."""

from pathlib import Path

from .database import Database
from .room import StorageError

_VERSION = 5
_OURS = 0x53543256  # "ST2V", the application id since version 4
_SCHEMA = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    model TEXT NOT NULL,
    request TEXT NOT NULL,
    status TEXT NOT NULL DEFAULT 'queued',
    revision INTEGER NOT NULL,
    width INTEGER NOT NULL, height INTEGER NOT NULL, fps INTEGER NOT NULL,
    frames_total INTEGER NOT NULL, frames_done INTEGER NOT NULL DEFAULT 0,
    stage TEXT, step INTEGER NOT NULL DEFAULT 0, steps INTEGER NOT NULL DEFAULT 0,
    source TEXT,
    cancelling INTEGER NOT NULL DEFAULT 0,
    deleted INTEGER NOT NULL DEFAULT 0,
    slot INTEGER,
    tries INTEGER NOT NULL DEFAULT 0,
    reached INTEGER NOT NULL DEFAULT 0,
    created_at REAL NOT NULL, started_at REAL, completed_at REAL, expires_at REAL,
    first_seconds REAL,
    worked_seconds REAL NOT NULL DEFAULT 0,
    notes TEXT NOT NULL DEFAULT '[]',
    error_code TEXT, error_message TEXT,
    key TEXT UNIQUE, key_digest TEXT
);
CREATE INDEX jobs_by_status ON jobs (status, number);
CREATE INDEX jobs_by_revision ON jobs (revision);
CREATE TABLE changes (
    job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    prompt TEXT NOT NULL,
    event TEXT,
    PRIMARY KEY (job, number)
);
CREATE TABLE workers (slot INTEGER PRIMARY KEY, pid INTEGER NOT NULL, ready INTEGER NOT NULL);
CREATE TABLE totals (name TEXT PRIMARY KEY, value REAL NOT NULL);
CREATE TABLE begun (name TEXT PRIMARY KEY);
"""
_SESSIONS = """
CREATE TABLE sessions (
    job TEXT PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE, turn INTEGER NOT NULL, place INTEGER
);
"""
_FROM_1 = _SESSIONS + "ALTER TABLE changes ADD COLUMN event TEXT;"
_FROM_2 = """
UPDATE jobs SET request = json_remove(
    json_set(request, '$.num_frames', json_extract(request, '$.frames'),
        '$.num_inference_steps', json_extract(request, '$.steps')),
    '$.frames', '$.steps') WHERE json_valid(request);
"""
_FROM_3 = """
ALTER TABLE jobs ADD COLUMN reached INTEGER NOT NULL DEFAULT 0;
UPDATE jobs SET reached = frames_done;
CREATE TABLE begun (name TEXT PRIMARY KEY);
"""
_FROM_4 = "ALTER TABLE jobs ADD COLUMN stage TEXT;"
_STEPS = {
    0: _SCHEMA + _SESSIONS,
    1: _FROM_1 + _FROM_2 + _FROM_3 + _FROM_4,
    2: _FROM_2 + _FROM_3 + _FROM_4,
    3: _FROM_3 + _FROM_4,
    4: _FROM_4,
}


def prepare(path: Path, database: Database) -> None:
    """Create the tables or migrate them to this version.

    Raises StorageError for the database of another program.
    """
    with database.reading() as db:
        version, kind = (
            db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("user_version", "application_id")
        )
        tables = {row["name"] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if (version, kind) == (_VERSION, _OURS) and "jobs" in tables:
        return
    if kind not in (0, _OURS) or (tables if version == 0 else "jobs" not in tables):
        raise StorageError(f"{path}: is a database of something else; take another folder")
    if version not in _STEPS:
        raise StorageError(
            f"{path}: its jobs were written by another version of streamingt2v; take another folder"
        )
    with database.writing() as db:
        if db.execute("PRAGMA user_version").fetchone()[0] != version:  # another server has done it
            return
        for statement in _STEPS[version].split(";"):
            db.execute(statement)
        db.execute(f"PRAGMA application_id = {_OURS}")
        db.execute(f"PRAGMA user_version = {_VERSION}")
