"""The SQLite file that servers and workers share: a connection pool and transactions."""

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .room import Reserve, explained

WAIT_SECONDS = 30.0  # for a lock
CONNECTIONS = 8  # open at once; each has up to three descriptors
_LOG_PAGES = 128  # checkpoint the write-ahead log at half a megabyte: it must fit on a small disk
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


class Database:
    """The file at `path`, created with mode 0600 if it is missing. Thread-safe.

    durable: wait for the disk at every change. shared: several machines use the file, so use a rollback
    journal; SQLite's write-ahead log is faster and lets readers run beside a writer, but needs shared memory.

    Raises StorageError if the file cannot be used, StorageFull if a change does not fit on the disk.

    Threads borrow connections from a pool of at most `CONNECTIONS`, so ended threads leave no descriptors.
    """

    def __init__(self, path: Path, durable: bool = True, shared: bool = False):
        self._path, self._reserve = path, Reserve(path.parent)
        self._journal = "TRUNCATE" if shared else "WAL"
        # without the write-ahead log, less than FULL can corrupt the file
        self._synchronous = "FULL" if durable or shared else "NORMAL"
        self._idle: list[sqlite3.Connection] = []  # last in, first out
        self._room = threading.Semaphore(CONNECTIONS)
        self._writer = threading.Lock()
        with explained(path):
            with suppress(FileExistsError):
                # O_EXCL: closing an existing file would release the locks of this process's other connections
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            for suffix in ("", "-wal", "-shm", "-journal"):
                with suppress(FileNotFoundError, PermissionError):  # missing, or owned by another user
                    path.with_name(path.name + suffix).chmod(0o600)

    def close(self) -> None:
        """Close the idle connections; a later call opens new ones."""
        while self._idle:
            self._idle.pop().close()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection for the block."""
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
        """Run the block in a transaction; an exception rolls it back.

        Writers run one at a time; readers go on.
        """
        with self._writer, self.reading() as db:
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")

    def make_room(self) -> bool:
        """Truncate the write-ahead log and give up the reserve. Return False if there was no reserve."""
        if self._journal == "WAL":
            with suppress(Exception), self.reading() as db:
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return self._reserve.give()

    def take_reserve(self) -> None:
        """Allocate the reserve for `make_room` if the disk has plenty of space."""
        self._reserve.take()

    def _give_back(self, db: sqlite3.Connection) -> None:
        with suppress(sqlite3.Error):
            if db.in_transaction:  # SQLite itself may have rolled back, as on a full disk
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
            db.execute(f"PRAGMA synchronous = {self._synchronous}")
            db.execute("PRAGMA foreign_keys = ON")
            db.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
        except BaseException:
            db.close()
            raise
        return db

    def _set_journal(self, db: sqlite3.Connection) -> None:
        """Set the journal mode, retrying while other processes use the other mode.

        SQLite's own timeout does not cover this.
        """
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
    """Decode text; replace invalid bytes, so that one damaged row does not make the others unreadable."""
    return data.decode(errors="replace")
