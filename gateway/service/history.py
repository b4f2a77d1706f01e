"""The gateway's own queue and history: SQLite on a local disk, shared by all its processes.

Nothing here is needed to find an image: the store is the truth. A database that is missing is recreated, one that is
damaged is moved aside (`gateway.service.database`); both are then filled from the store's references, each as a pull
that succeeded.

    conversions   one row per conversion: its source, its last event; `state` is running, done, failed or lost
    pulls         one row per request: who, which name, since when, until when, and its error
    notes         other failures that an operator should know of: transfers to replica systems
    totals        one row per sample of what is counted (`gateway.service.counted`), by its text, since the database
                  was made

A conversion whose process was killed stays `running` in its row; that nobody holds its lock tells the difference.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from gateway.service.counted import ERRORS, FILES, PULLS, result_of
from gateway.service.database import Database
from gateway.store.locks import Locks
from gateway.wire import events
from gateway.wire.events import Converted, Event, Failed, Queued
from gateway.wire.messages import FailedPull, RunningPull
from udi.facts import Ref
from udi.metrics import Tally, blame
from udiroot.errors import UdiError, UpstreamFailed

_KEPT = 10_000
"""Rows of each table that are kept."""
_INTERRUPTED = "the gateway terminated in the middle of it"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """One conversion as it was last seen. `image_id` is empty until it is known."""

    number: int
    key: str
    state: str
    event: Event
    image_id: str


class History:
    """Queue and history of one gateway, for all its threads."""

    def __init__(self, state: str, locks: Locks, refs: Callable[[], Iterable[Ref]]) -> None:
        """`refs` gives the store's references, to fill a new database."""
        self._locks = locks
        self._database = Database(f"{state}/history.sqlite", locks, refs)

    def begin(self, key: str, source: str) -> int:
        """A conversion starts. What an earlier one of the same key left is closed: its process is gone."""
        now = time.time()
        with self._database.writing() as base:
            lost = Failed.of(UpstreamFailed(_INTERRUPTED, "it was tried again"))
            base.execute(
                "UPDATE conversions SET state='lost', event=?, changed=? WHERE key=? AND state='running'",
                (events.to_json(lost), now, key),
            )
            row = base.execute(
                "INSERT INTO conversions(key, source, state, event, image_id, pid, started, changed)"
                " VALUES(?, ?, 'running', ?, '', ?, ?, ?)",
                (key, source, events.to_json(Queued()), os.getpid(), now, now),
            )
            return self._number(base, "conversions", row)

    def report(self, number: int, event: Event) -> None:
        """The conversion's last event, for those who wait for it."""
        self._noted(
            "UPDATE conversions SET event=?, changed=? WHERE number=?", (events.to_json(event), time.time(), number)
        )

    def identified(self, number: int, image_id: str) -> None:
        """The conversion's source holds this image."""
        with self._database.writing() as base:
            base.execute("UPDATE conversions SET image_id=? WHERE number=?", (image_id, number))

    def end(self, number: int, error: UdiError | None) -> None:
        """The conversion succeeded, or failed with `error`."""
        if error is None:
            self._noted("UPDATE conversions SET state='done', changed=? WHERE number=?", (time.time(), number))
            return
        self._noted(
            "UPDATE conversions SET state='failed', event=?, changed=? WHERE number=?",
            (events.to_json(Failed.of(error)), time.time(), number),
        )

    def running(self, key: str) -> Row | None:
        """The conversion of this key that is in progress, or whose process was killed."""
        return self._row("SELECT * FROM conversions WHERE key=? AND state='running' ORDER BY number DESC", key)

    def row(self, number: int) -> Row | None:
        """A conversion by its number; None where the history was recreated since."""
        return self._row("SELECT * FROM conversions WHERE number=?", number)

    @contextlib.contextmanager
    def pull(self, uid: int, reference: str, registry: str = FILES) -> Iterator[None]:
        """Record that `uid` requests an image, and the outcome; `registry` is for what is counted."""
        with self._locks.holder() as holder:
            with self._database.writing() as base:
                row = base.execute(
                    "INSERT INTO pulls(uid, reference, state, error, pid, since, until)"
                    " VALUES(?, ?, 'running', '', ?, ?, 0)",
                    (uid, reference, os.getpid(), time.time()),
                )
                number = self._number(base, "pulls", row)
                holder.try_take(self._locks.pull(number))
            try:
                yield
            except BaseException as error:
                self._ended(number, "failed", error.message if isinstance(error, UdiError) else type(error).__name__)
                self._count_pull(registry, error)
                raise
            self._ended(number, "done", "")
            self._count_pull(registry, None)

    def queue(self) -> tuple[RunningPull, ...]:
        """Pulls in progress, oldest first. Those of processes that are gone are closed: nobody holds their lock, while
        their pid may be another's."""
        with self._database.writing() as base, self._locks.holder() as holder:
            rows = base.execute(
                "SELECT number, uid, reference, since FROM pulls WHERE state='running' ORDER BY number"
            ).fetchall()
            gone = [row["number"] for row in rows if not holder.is_held_by_another(self._locks.pull(row["number"]))]
            base.executemany(
                "UPDATE pulls SET state='failed', error=?, until=? WHERE number=?",
                [(_INTERRUPTED, time.time(), number) for number in gone],
            )
        return tuple(
            RunningPull(uid=row["uid"], reference=row["reference"], since=int(row["since"]))
            for row in rows
            if row["number"] not in gone
        )

    def errors(self, limit: int = 10) -> tuple[FailedPull, ...]:
        """The last failed pulls and transfers, newest first."""
        with self._database.writing() as base:
            rows = base.execute(
                "SELECT uid, reference, error, until, number FROM pulls WHERE state='failed'"
                " UNION ALL SELECT uid, subject, error, at, number FROM notes"
                " ORDER BY until DESC, number DESC LIMIT ?",
                (limit,),
            ).fetchall()
        return tuple(
            FailedPull(uid=row["uid"], reference=row["reference"], error=row["error"], until=int(row["until"]))
            for row in rows
        )

    def note(self, subject: str, error: UdiError) -> None:
        """Another failure that an operator should know of: a transfer to a replica system."""
        self._noted(
            "INSERT INTO notes(uid, subject, error, at) VALUES(?, ?, ?, ?)",
            (os.geteuid(), subject, error.message, time.time()),
        )
        self._noted("DELETE FROM notes WHERE number <= (SELECT max(number) FROM notes) - ?", (_KEPT,))

    def count(self, tally: Tally) -> None:
        """Add what was counted to the totals."""
        try:
            with self._database.writing() as base:
                base.executemany(
                    "INSERT INTO totals(sample, value) VALUES(?, ?)"
                    " ON CONFLICT(sample) DO UPDATE SET value = value + excluded.value",
                    list(tally.samples.items()),
                )
        except UpstreamFailed as error:
            log.warning("not counted: %s", error.message)

    def totals(self) -> dict[str, float]:
        """What was counted since the database was made, by sample."""
        with self._database.writing() as base:
            return {row["sample"]: row["value"] for row in base.execute("SELECT sample, value FROM totals")}

    def rebuild(self) -> int:
        """Move the database aside and create a new one from the store. Returns the number of its names."""
        self._database.rebuild()
        with self._database.writing() as base:
            return int(base.execute("SELECT count(*) FROM pulls").fetchone()[0])

    @staticmethod
    def _number(base: sqlite3.Connection, table: str, inserted: sqlite3.Cursor) -> int:
        """The number of the row that was inserted; rows that are too old are deleted."""
        assert inserted.lastrowid
        base.execute(f"DELETE FROM {table} WHERE number <= ?", (inserted.lastrowid - _KEPT,))  # noqa: S608 - our names
        return inserted.lastrowid

    def _count_pull(self, registry: str, error: BaseException | None) -> None:
        tally = Tally()
        tally.count(PULLS, registry, result_of(error))
        if error is not None:
            tally.count(ERRORS, registry, *blame(error))
        self.count(tally)

    def _ended(self, number: int, state: str, error: str) -> None:
        self._noted("UPDATE pulls SET state=?, error=?, until=? WHERE number=?", (state, error, time.time(), number))

    def _noted(self, query: str, values: tuple[object, ...]) -> None:
        """A write that no image depends on: where the disk is full, the conversion's own error is the one to report.
        Who waits for a conversion whose end was not written finds its lock free, and starts again."""
        try:
            with self._database.writing() as base:
                base.execute(query, values)
        except UpstreamFailed as error:
            log.warning("not recorded: %s", error.message)

    def _row(self, query: str, value: object) -> Row | None:
        with self._database.writing() as base:
            found = base.execute(f"{query} LIMIT 1", (value,)).fetchone()
        if found is None:
            return None
        event = events.from_json(found["event"], Converted)
        return Row(found["number"], found["key"], found["state"], event, found["image_id"])
