"""The file of the gateway's history: SQLite, made where it is missing, moved aside where it is damaged.

A few connections are lent to one transaction after the other. One for each thread would outlive its thread: Python's
connection is a cycle with its cache of statements, which stays until a collection of garbage finds it, and its
descriptor even longer, until SQLite has no other connection to the same file.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from gateway.store.locks import Locks
from udi.facts import Ref
from udiroot.errors import UpstreamFailed

_SCHEMA = """
CREATE TABLE IF NOT EXISTS conversions(
    number INTEGER PRIMARY KEY, key TEXT NOT NULL, source TEXT NOT NULL, state TEXT NOT NULL, event TEXT NOT NULL,
    image_id TEXT NOT NULL, pid INTEGER NOT NULL, started REAL NOT NULL, changed REAL NOT NULL);
CREATE INDEX IF NOT EXISTS by_key ON conversions(key, number);
CREATE INDEX IF NOT EXISTS by_state ON conversions(state, number);
CREATE TABLE IF NOT EXISTS pulls(
    number INTEGER PRIMARY KEY, uid INTEGER NOT NULL, reference TEXT NOT NULL, state TEXT NOT NULL,
    error TEXT NOT NULL, pid INTEGER NOT NULL, since REAL NOT NULL, until REAL NOT NULL);
CREATE INDEX IF NOT EXISTS by_pull_state ON pulls(state, number);
CREATE TABLE IF NOT EXISTS notes(
    number INTEGER PRIMARY KEY, uid INTEGER NOT NULL, subject TEXT NOT NULL, error TEXT NOT NULL, at REAL NOT NULL);
"""
_TOTALS = "CREATE TABLE IF NOT EXISTS totals(sample TEXT PRIMARY KEY, value REAL NOT NULL) WITHOUT ROWID"
"""Apart from the others: a database of before has none, and is whole."""
_TABLES = ("conversions", "pulls", "notes")
_WAIT_SECONDS = 20.0
_MOST = 4
"""Transactions at the same time; SQLite writes one after the other anyway."""


@dataclass(frozen=True)
class _Opened:
    """A connection, and the file that it is to."""

    base: sqlite3.Connection
    inode: tuple[int, int] | None


class Database:
    """The database at `path`, for all threads of one process and beside other processes."""

    def __init__(self, path: str, locks: Locks, refs: Callable[[], Iterable[Ref]]) -> None:
        """`refs` gives the store's references, to fill a new database."""
        self._path = path
        self._locks = locks
        self._refs = refs
        self._idle: list[_Opened] = []
        """Connections that nobody uses now. A list's append and pop are atomic."""
        self._turns = threading.Semaphore(_MOST)

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction. Raises UpstreamFailed when the disk is full or the database cannot be used."""
        try:
            with self._lent() as base, base:
                yield base
        except sqlite3.OperationalError as error:
            raise UpstreamFailed(f"cannot write the gateway's history {self._path}: {error}") from error
        except sqlite3.DatabaseError as error:
            self._replace_damaged()
            raise UpstreamFailed(f"the gateway's history {self._path} was damaged: {error}", "try again") from error

    def rebuild(self) -> None:
        """Move the database aside and create a new one from the store."""
        with self._locks.holder() as holder:
            holder.take(self._locks.history())
            self._recreate()

    @contextlib.contextmanager
    def _lent(self) -> Iterator[sqlite3.Connection]:
        """A connection for one transaction; it is closed where that fails."""
        with self._turns:
            opened = self._opened()
            try:
                yield opened.base
            except BaseException:
                opened.base.close()
                raise
            self._idle.append(opened)

    def _opened(self) -> _Opened:
        """A connection to the database that exists now: another process may have replaced it, or spoiled it."""
        inode = self._inode()
        with contextlib.suppress(IndexError):
            while opened := self._idle.pop():
                if inode is not None and opened.inode == inode and _is_whole(opened.base):
                    return opened
                opened.base.close()
        base = self._open()
        return _Opened(base, self._inode())

    def _inode(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self._path)
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino

    def _replace_damaged(self) -> None:
        with self._locks.holder() as holder:
            holder.take(self._locks.history())
            try:
                base = self._checked()
                sound = base.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok"
                base.close()
            except sqlite3.DatabaseError:
                sound = False
            if not sound:
                self._recreate()

    def _open(self) -> sqlite3.Connection:
        with self._locks.holder() as holder:
            holder.take(self._locks.history())
            try:
                if os.path.exists(self._path):
                    return self._checked()
            except sqlite3.DatabaseError as error:
                if "locked" in str(error) or "full" in str(error) or "unable to open" in str(error):
                    raise
            self._recreate()
            return self._checked()

    def _checked(self) -> sqlite3.Connection:
        base = sqlite3.connect(self._path, timeout=_WAIT_SECONDS, check_same_thread=False)
        try:
            base.row_factory = sqlite3.Row
            base.execute("PRAGMA synchronous=NORMAL")
            _read_tables(base)
            if base.execute("SELECT 1 FROM sqlite_master WHERE name='totals'").fetchone() is None:
                base.execute(_TOTALS)  # not sooner: a damaged database must only be read, since a write waits for locks
        except sqlite3.Error:
            base.close()
            raise
        return base

    def _recreate(self) -> None:
        """To be called with the lock held. The new file gets its name when it is complete."""
        temporary = f"{self._path}.new"
        for leftover in (temporary, f"{temporary}-wal", f"{temporary}-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(leftover)
        base = sqlite3.connect(temporary)
        try:
            base.executescript(_SCHEMA)
            base.execute(_TOTALS)
            base.executemany(
                "INSERT INTO pulls(uid, reference, state, error, pid, since, until) VALUES(?, ?, 'done', '', 0, ?, ?)",
                [
                    (ref.owners[0] if ref.owners else os.geteuid(), ref.reference, ref.created, ref.created)
                    for ref in self._refs()
                    if not ref.is_pin
                ],
            )
            base.commit()
            base.execute("PRAGMA journal_mode=WAL")
        finally:
            base.close()
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self._path}{suffix}")  # they belong to the old database, and would spoil the new one
        if os.path.exists(self._path):
            os.replace(self._path, f"{self._path}.broken")
        os.replace(temporary, self._path)


def _read_tables(base: sqlite3.Connection) -> None:
    """Raises sqlite3.Error where one is missing, or its last row cannot be read."""
    for table in _TABLES:
        base.execute(f"SELECT * FROM {table} ORDER BY number DESC LIMIT 1").fetchone()  # noqa: S608 - our names


def _is_whole(base: sqlite3.Connection) -> bool:
    """Whether the file is what the connection remembers of it."""
    try:
        base.execute("PRAGMA shrink_memory")  # what it remembers, it would not read
        _read_tables(base)
    except sqlite3.Error:
        return False
    return True
