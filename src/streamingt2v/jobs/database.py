"""The SQLite file that servers and workers share: a connection for each thread, and transactions."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WAIT_SECONDS = 30.0  # for others that write


class Database:
    """The file at `path`, made if it is missing. Any thread may call.

    durable: wait for the disk at every change. shared: by several machines, so with a rollback journal; SQLite's write-ahead log, which is
    quicker and lets any number read while one writes, needs the memory of one.
    """

    def __init__(self, path: Path, durable: bool = True, shared: bool = False):
        self._path = path
        self._journal = "TRUNCATE" if shared else "WAL"
        self._synchronous = "FULL" if durable or shared else "NORMAL"  # without the log less would risk the file
        self._local = threading.local()
        self._open: list[sqlite3.Connection] = []

    def close(self) -> None:
        """Close the connections of all threads."""
        for connection in self._open:
            connection.close()
        self._open.clear()
        self._local = threading.local()

    @property
    def reading(self) -> sqlite3.Connection:
        """This thread's connection."""
        if not hasattr(self._local, "db"):
            db = sqlite3.connect(self._path, timeout=WAIT_SECONDS, isolation_level=None, check_same_thread=False)
            db.row_factory = sqlite3.Row
            self._set_journal(db)
            db.execute(f"PRAGMA synchronous = {self._synchronous}")
            db.execute("PRAGMA foreign_keys = ON")
            self._local.db = db
            self._open.append(db)
        return self._local.db

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of the block, or nothing if it raises."""
        db = self.reading
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
            db.execute("COMMIT")
        except BaseException:
            db.execute("ROLLBACK")
            raise

    def _set_journal(self, db: sqlite3.Connection) -> None:
        """SQLite does not wait by itself for the last one that has the other kind of journal: workers of a server that was killed."""
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                db.execute(f"PRAGMA journal_mode = {self._journal}")
                return
            except sqlite3.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
