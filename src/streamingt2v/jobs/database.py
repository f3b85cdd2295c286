"""The SQLite file that servers and workers share: a pool of connections, and transactions."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .room import Reserve, explained

WAIT_SECONDS = 30.0  # for others that write
CONNECTIONS = 8  # open at once; each has up to three descriptors
_LOG_PAGES = 128  # of the write-ahead log, until they go to the file: half a megabyte, so that a small disk has room for both
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


class Database:
    """The file at `path`, made if it is missing and kept from other users. Any thread may call.

    durable: wait for the disk at every change. shared: by several machines, so with a rollback journal; SQLite's write-ahead log, which is
    quicker and lets any number read while one writes, needs the memory of one. StorageError where it cannot be used, StorageFull where
    there is no room for a change.

    Threads come and go, so connections are lent and not owned: however many threads call, no more than `CONNECTIONS` are open.
    """

    def __init__(self, path: Path, durable: bool = True, shared: bool = False):
        self._path, self._reserve = path, Reserve(path.parent)
        self._journal = "TRUNCATE" if shared else "WAL"
        self._synchronous = (
            "FULL" if durable or shared else "NORMAL"
        )  # without the log less would risk the file
        self._idle: list[sqlite3.Connection] = []  # the one used last is used next
        self._room = threading.Semaphore(CONNECTIONS)
        self._writer = threading.Lock()
        with explained(path):
            with suppress(FileExistsError):  # SQLite gives its other files the same mode
                # to open and close one that is there would end the locks of all its connections in this process
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            for suffix in ("", "-wal", "-shm", "-journal"):
                with suppress(
                    FileNotFoundError, PermissionError
                ):  # not there, or another user's that we may write
                    path.with_name(path.name + suffix).chmod(0o600)

    def close(self) -> None:
        """Close the connections that are not lent. Another call opens new ones."""
        while self._idle:
            self._idle.pop().close()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection, for the time of the block."""
        with self._room, explained(self._path):
            try:
                db = self._idle.pop()
            except IndexError:
                db = self._opened()
            try:
                yield db
            finally:
                self._give_back(db)

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of the block, or nothing if it raises. One at a time, so that those who read find a connection."""
        with self._writer, self.reading() as db:
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")

    def make_room(self) -> bool:
        """On a full disk, for a change that cannot wait: move the log into the file, and give up the reserve. False if there was none."""
        if self._journal == "WAL":
            with suppress(Exception), self.reading() as db:
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return self._reserve.give()

    def take_reserve(self) -> None:
        """Hold room for `make_room`, where there is plenty."""
        self._reserve.take()

    def _give_back(self, db: sqlite3.Connection) -> None:
        with suppress(sqlite3.Error):
            if db.in_transaction:  # SQLite may have ended it by itself, as on a full disk
                db.execute("ROLLBACK")
        if db.in_transaction:
            db.close()
        else:
            self._idle.append(db)

    def _opened(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=WAIT_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            db.row_factory = sqlite3.Row
            db.text_factory = _text
            self._set_journal(db)
            for pragma in (
                f"synchronous = {self._synchronous}",
                "foreign_keys = ON",
                f"wal_autocheckpoint = {_LOG_PAGES}",
            ):
                db.execute(f"PRAGMA {pragma}")
        except BaseException:
            db.close()
            raise
        return db

    def _set_journal(self, db: sqlite3.Connection) -> None:
        """SQLite does not wait by itself for the last one that has the other kind of journal: workers of a server that was killed."""
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                db.execute(f"PRAGMA journal_mode = {self._journal}")
                return
            except sqlite3.OperationalError as error:
                if time.monotonic() > deadline or error.sqlite_errorcode & 0xFF not in _BUSY:
                    raise
                time.sleep(0.1)


def _text(data: bytes) -> str:
    """Decode a text column; a damaged row must not keep the others from being read."""
    return data.decode(errors="replace")
