"""The gateway's own queue and history: SQLite on a local disk, shared by all its processes.

Nothing here is needed to find an image: the store is the truth. A database that is missing is made anew, one that is
broken is put aside; both are then filled from the store's references.

    conversions   one row a conversion: what it is of, its last event; `state` is running, done, failed or lost
    pulls         one row for each who asked: who, which name, since when, until when, and what went wrong

A conversion whose process was killed stays `running` in its row; that nobody holds its lock tells the difference.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from gateway.store.locks import Locks
from gateway.wire.protocol import error_event, raised
from udi.facts import Ref
from udiroot.errors import UdiError, UpstreamFailed

_SCHEMA = """
CREATE TABLE IF NOT EXISTS conversions(
    number INTEGER PRIMARY KEY, key TEXT NOT NULL, what TEXT NOT NULL, state TEXT NOT NULL, event TEXT NOT NULL,
    image TEXT NOT NULL, pid INTEGER NOT NULL, started REAL NOT NULL, changed REAL NOT NULL);
CREATE INDEX IF NOT EXISTS by_key ON conversions(key, number);
CREATE INDEX IF NOT EXISTS by_state ON conversions(state, number);
CREATE TABLE IF NOT EXISTS pulls(
    number INTEGER PRIMARY KEY, uid INTEGER NOT NULL, reference TEXT NOT NULL, image TEXT NOT NULL,
    state TEXT NOT NULL, error TEXT NOT NULL, pid INTEGER NOT NULL, since REAL NOT NULL, until REAL NOT NULL);
CREATE INDEX IF NOT EXISTS by_pull_state ON pulls(state, number);
"""
_WAIT_SECONDS = 20.0
_KEPT = 10_000
"""Rows of each table that are kept."""


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """One conversion as it was last seen."""

    number: int
    key: str
    what: str
    state: str
    event: dict[str, Any]
    image: str

    def error(self) -> UdiError | None:
        """What it failed of."""
        return raised(self.event) if self.state == "failed" else None


class History:
    """Queue and history of one gateway, for all its threads."""

    def __init__(self, state: str, locks: Locks, refs: Callable[[], Iterable[Ref]]) -> None:
        """`refs` gives the store's references, to fill a new database."""
        self._path = f"{state}/history.sqlite"
        self._locks = locks
        self._refs = refs
        self._mine = threading.local()

    def begin(self, key: str, what: str) -> int:
        """A conversion starts. What an earlier one of the same key left is closed: its process is gone."""
        now = time.time()
        with self._writing() as base:
            lost = error_event(UpstreamFailed("the gateway ended in the middle of it", "it was tried again"))
            base.execute(
                "UPDATE conversions SET state='lost', event=?, changed=? WHERE key=? AND state='running'",
                (json.dumps(lost), now, key),
            )
            row = base.execute(
                "INSERT INTO conversions(key, what, state, event, image, pid, started, changed)"
                " VALUES(?, ?, 'running', '{\"event\": \"queued\"}', '', ?, ?, ?)",
                (key, what, os.getpid(), now, now),
            )
            assert row.lastrowid
            base.execute("DELETE FROM conversions WHERE number <= ?", (row.lastrowid - _KEPT,))
            return row.lastrowid

    def tell(self, number: int, event: dict[str, Any]) -> None:
        """The conversion's last event, for those who wait for it."""
        self._noted(
            "UPDATE conversions SET event=?, changed=? WHERE number=?", (json.dumps(event), time.time(), number)
        )

    def identified(self, number: int, image: str) -> None:
        with self._writing() as base:
            base.execute("UPDATE conversions SET image=? WHERE number=?", (image, number))

    def end(self, number: int, error: UdiError | None) -> None:
        """The conversion is over, well or not."""
        event = error_event(error) if error else {"event": "done"}
        self._noted(
            "UPDATE conversions SET state=?, event=?, changed=? WHERE number=?",
            ("failed" if error else "done", json.dumps(event), time.time(), number),
        )

    def running(self, key: str) -> Row | None:
        """The conversion of these files that goes on, or whose process was killed."""
        return self._row("SELECT * FROM conversions WHERE key=? AND state='running' ORDER BY number DESC", key)

    def row(self, number: int) -> Row | None:
        return self._row("SELECT * FROM conversions WHERE number=?", number)

    @contextlib.contextmanager
    def pull(self, uid: int, reference: str) -> Iterator[None]:
        """Note that `uid` asks for an image, and how it ends."""
        with self._writing() as base:
            number = base.execute(
                "INSERT INTO pulls(uid, reference, image, state, error, pid, since, until)"
                " VALUES(?, ?, '', 'running', '', ?, ?, 0)",
                (uid, reference, os.getpid(), time.time()),
            ).lastrowid
            assert number
            base.execute("DELETE FROM pulls WHERE number <= ?", (number - _KEPT,))
        try:
            yield
        except UdiError as error:
            self._ended(number, "failed", error.message)
            raise
        except BaseException as error:
            self._ended(number, "failed", type(error).__name__)
            raise
        self._ended(number, "done", "")

    def queue(self) -> list[dict[str, Any]]:
        """Pulls that go on, oldest first: uid, reference, since, stage."""
        with self._writing() as base:
            rows = base.execute("SELECT number, uid, reference, pid, since FROM pulls WHERE state='running'").fetchall()
            gone = [row["number"] for row in rows if not os.path.exists(f"/proc/{row['pid']}")]
            base.executemany(
                "UPDATE pulls SET state='failed', error='the gateway ended in the middle of it', until=strftime('%s')"
                " WHERE number=?",
                [(number,) for number in gone],
            )
        kept = [row for row in rows if row["number"] not in gone]
        return [{"uid": row["uid"], "reference": row["reference"], "since": int(row["since"])} for row in kept]

    def errors(self, most: int = 10) -> list[dict[str, Any]]:
        """The last pulls that failed, newest first: uid, reference, since, until, error."""
        with self._writing() as base:
            rows = base.execute(
                "SELECT * FROM pulls WHERE state='failed' ORDER BY until DESC, number DESC LIMIT ?", (most,)
            ).fetchall()
        keys = ("uid", "reference", "error")
        return [{key: row[key] for key in keys} | {"until": int(float(row["until"]))} for row in rows]

    def note(self, what: str, error: UdiError) -> None:
        """Something else that an operator should know of: a transfer that failed, say."""
        now = time.time()
        self._noted(
            "INSERT INTO pulls(uid, reference, image, state, error, pid, since, until)"
            " VALUES(?, ?, '', 'failed', ?, ?, ?, ?)",
            (os.geteuid(), what, error.message, os.getpid(), now, now),
        )

    def rebuild(self) -> int:
        """Put the database aside and make a new one from the store. Returns how many names it has."""
        with self._locks.holder() as holder:
            holder.take("history")
            self._make_anew()
        with self._writing() as base:
            return int(base.execute("SELECT count(*) FROM pulls").fetchone()[0])

    def _ended(self, number: int, state: str, error: str) -> None:
        self._noted("UPDATE pulls SET state=?, error=?, until=? WHERE number=?", (state, error, time.time(), number))

    def _noted(self, query: str, values: tuple[object, ...]) -> None:
        """A write that no image hangs on: where the disk is full, the conversion's own error is the one to tell. Who
        waits for a conversion whose end was not written finds its lock free, and begins anew."""
        try:
            with self._writing() as base:
                base.execute(query, values)
        except UpstreamFailed as error:
            log.warning("not noted: %s", error.message)

    def _row(self, query: str, value: object) -> Row | None:
        with self._writing() as base:
            found = base.execute(f"{query} LIMIT 1", (value,)).fetchone()
        if found is None:
            return None
        return Row(
            found["number"], found["key"], found["what"], found["state"], json.loads(found["event"]), found["image"]
        )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction. Raises UpstreamFailed when the disk is full or the database cannot be used."""
        try:
            with self._connection() as base:
                yield base
        except sqlite3.OperationalError as error:
            self._forget()
            raise UpstreamFailed(f"the gateway's history {self._path} cannot be written: {error}") from error
        except sqlite3.DatabaseError as error:
            self._forget()
            self._replace_broken()
            raise UpstreamFailed(f"the gateway's history {self._path} was broken: {error}", "try again") from error

    def _replace_broken(self) -> None:
        with self._locks.holder() as holder:
            holder.take("history")
            try:
                base = self._checked()
                sound = base.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok"
                base.close()
            except sqlite3.DatabaseError:
                sound = False
            if not sound:
                self._make_anew()

    def _connection(self) -> sqlite3.Connection:
        """This thread's connection to the database that is there now: another process may have put one in its place."""
        base: sqlite3.Connection | None = getattr(self._mine, "base", None)
        try:
            status = os.stat(self._path)
            place: object = (status.st_dev, status.st_ino)
        except FileNotFoundError:
            place = None
        if base is None or place != self._mine.place:
            self._forget()
            base = self._open()
            status = os.stat(self._path)
            self._mine.base, self._mine.place = base, (status.st_dev, status.st_ino)
        return base

    def _forget(self) -> None:
        base: sqlite3.Connection | None = getattr(self._mine, "base", None)
        self._mine.base = self._mine.place = None
        if base:
            base.close()

    def _open(self) -> sqlite3.Connection:
        with self._locks.holder() as holder:
            holder.take("history")
            try:
                if os.path.exists(self._path):
                    return self._checked()
            except sqlite3.DatabaseError as error:
                if "locked" in str(error) or "full" in str(error) or "unable to open" in str(error):
                    raise
            self._make_anew()
            return self._checked()

    def _checked(self) -> sqlite3.Connection:
        base = sqlite3.connect(self._path, timeout=_WAIT_SECONDS)
        try:
            base.row_factory = sqlite3.Row
            base.execute("PRAGMA synchronous=NORMAL")
            for table in ("conversions", "pulls"):
                base.execute(f"SELECT * FROM {table} ORDER BY number DESC LIMIT 1").fetchone()  # noqa: S608 - our names
        except BaseException:
            base.close()
            raise
        return base

    def _make_anew(self) -> None:
        """To be called with the lock held. The new file gets its name when it is whole."""
        temporary = f"{self._path}.new"
        for leftover in (temporary, f"{temporary}-wal", f"{temporary}-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(leftover)
        base = sqlite3.connect(temporary)
        try:
            base.executescript(_SCHEMA)
            base.executemany(
                "INSERT INTO pulls(uid, reference, image, state, error, pid, since, until)"
                " VALUES(?, ?, ?, 'done', '', 0, ?, ?)",
                [
                    (ref.owners[0] if ref.owners else os.geteuid(), ref.reference, ref.id, ref.created, ref.created)
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
