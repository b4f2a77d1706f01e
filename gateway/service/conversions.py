"""Conversions in progress: each in a worker process of its own, followed by everyone who requests the same.

Those who request it may be threads of one service or processes of `udi-gateway handle`: locks decide who leads a
conversion, and the history tells the others how far it is. Should the leader's process be killed, the next of them
takes over with the files that it has itself.

Who opened the very same file joins the conversion of it. The same image out of another file waits for the first, and is
then only read and checked: nobody is given an image that they have not shown to have.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import logging
import time
from collections.abc import Iterator

from gateway.audit.scanner import scan
from gateway.service.counted import CONVERSION, FETCHED, LAYERS, MADE
from gateway.service.elsewhere import place_of
from gateway.service.heartbeat import BEAT, with_heartbeat
from gateway.service.history import History, Row
from gateway.service.origins import Origin
from gateway.service.pace import Pace
from gateway.service.turns import Turns
from gateway.service.workers import Worker
from gateway.store.locks import Holder, Locks
from gateway.store.writer import StoreWriter
from gateway.wire.events import Converted, Event, EventSink, Failed, Progress, Queued, Storing
from udi.audit import AuditConfig
from udi.facts import Facts
from udi.gatewayconfig import GatewayConfig
from udi.metrics import Tally
from udiroot.errors import UdiError, UpstreamFailed

_LOOK = 0.2
"""Seconds between two looks at a conversion that another thread or process leads."""
_LONG = 7 * 86400.0

log = logging.getLogger(__name__)


class Conversions:
    """Leads conversions, joins those of the same source, and shares a bounded number of workers between users."""

    def __init__(
        self, settings: GatewayConfig, audit: AuditConfig, store: StoreWriter, history: History, locks: Locks
    ) -> None:
        self._settings = settings
        self._audit = audit
        self._store = store
        self._history = history
        self._locks = locks
        self._turns = Turns(locks, settings.state, settings.workers, settings.connections)

    @contextlib.contextmanager
    def obtain(self, source: Origin, name: str, uid: int, on_event: EventSink, image_format: str) -> Iterator[str]:
        """The id of the image in `source`, once it is in the store; `name` is what `uid` pulls it as. It is made in
        `image_format`, unless it is there already.

        Until the caller leaves, the image stays even without a name. Raises what went wrong.
        """
        with contextlib.ExitStack() as held:
            key = hashlib.sha256(repr((*source.identity(), image_format)).encode()).hexdigest()
            report = _Reporter(on_event)
            while True:
                with self._locks.holder() as holder:
                    if self._takes_lead(holder, key, uid, report):
                        image_id = self._lead(key, name, source, report, held, image_format)
                        break
                with self._locks.holder() as holder:
                    row = self._history.running(key)
                    found = self._follow(row, holder, report, held) if row else ""
                if found:
                    image_id = found
                    break
                time.sleep(_LOOK / 10)
            yield image_id

    def _takes_lead(self, holder: Holder, key: str, uid: int, report: EventSink) -> bool:
        """Wait for a worker, and lead the conversion with it; False once another leads it.

        All who request the same source wait, each in the queue of their own user, and the first to get a worker leads:
        an image that a user with many pulls requested first does not wait for all of them.
        """
        report_queued = Pace(BEAT, lambda: report(Queued()))

        def waiting() -> None:
            if holder.is_held_by_another(self._locks.conversion(key)):
                raise _Begun
            report_queued()

        try:
            if holder.is_held_by_another(self._locks.conversion(key)):
                return False
            self._turns.take(holder, uid, waiting)
        except _Begun:
            return False
        return holder.try_take(self._locks.conversion(key))

    def _follow(self, row: Row, holder: Holder, report: EventSink, held: contextlib.ExitStack) -> str:
        """Follow a conversion to its end. Returns the image's id, or nothing where one must start again."""
        expected = ""
        while True:
            now = self._history.row(row.number)
            if now is None or now.state == "lost":
                return ""  # the history was recreated, or its process was killed and another began after it
            if now.image_id and not expected:
                held.enter_context(self._store.expecting(now.image_id))
                expected = now.image_id
            if now.state == "done":
                return expected if self._store.has(expected) else ""
            if isinstance(now.event, Failed):
                raise now.event.error()
            report(now.event)
            if holder.try_take(self._locks.conversion(row.key)):
                holder.release(self._locks.conversion(row.key))
                again = self._history.row(row.number)
                if again is None or again.state == "running":
                    return ""  # its process was killed
                continue
            time.sleep(_LOOK)

    def _lead(
        self, key: str, name: str, source: Origin, report: EventSink, held: contextlib.ExitStack, image_format: str
    ) -> str:
        number = self._history.begin(key, name)

        def on_event(event: Event) -> None:
            self._history.report(number, event)
            report(event)

        try:
            image_id = self._convert(number, source, on_event, held, image_format)
        except UdiError as error:
            self._history.end(number, error)
            raise
        except Exception as error:
            log.exception("a conversion failed with an internal error")
            failure = UpstreamFailed("internal error of the gateway while it converted the image", "see its log")
            self._history.end(number, failure)
            raise failure from error
        self._history.end(number, None)
        return image_id

    def _convert(
        self, number: int, source: Origin, on_event: EventSink, held: contextlib.ExitStack, image_format: str
    ) -> str:
        """Run a worker to its end, have the image scanned, and publish it. Returns the image's id."""
        settings = dataclasses.replace(self._settings, format=image_format)
        began, made = time.monotonic(), None
        with self._store.temporary() as temporary, self._store.temporary() as listed, contextlib.ExitStack() as ended:
            inventory = listed if self._audit.is_on else ""
            most = self._audit.max_inventory_bytes
            place = ended.enter_context(place_of(source, settings, on_event))
            worker = ended.enter_context(Worker(place, temporary, settings, inventory, most))
            image_id = worker.identified(on_event).id
            held.enter_context(self._store.expecting(image_id))
            self._history.identified(number, image_id)
            with self._locks.holder() as holder:
                waiting = Pace(BEAT, lambda: on_event(Queued()))
                holder.take(self._locks.making(image_id), seconds=_LONG, waiting=waiting)
                if not self._store.has(image_id):
                    made = worker.convert(on_event)
                    report = self._scan(image_id, inventory, on_event) if inventory else ""
                    on_event(Storing())
                    self._store.publish(temporary, made, inventory, report)
                    log.info("image %s is in the store", image_id)
            if made is None:
                worker.verify(on_event)
            self._count(source, worker.converted, made, time.monotonic() - began)
            return image_id

    def _count(self, source: Origin, converted: Converted, made: Facts | None, seconds: float) -> None:
        """What one conversion took, and what it made."""
        tally = Tally()
        if made:
            tally.count(MADE, by=made.size)
            tally.observe(CONVERSION, [seconds])
        if converted.fetched:
            tally.count(LAYERS, source.registry, "registry", by=converted.fetched)
            tally.count(FETCHED, source.registry, by=converted.fetched_bytes)
        if converted.cached:
            tally.count(LAYERS, source.registry, "cache", by=converted.cached)
        if tally.samples:
            self._history.count(tally)

    def _scan(self, image_id: str, inventory: str, on_event: EventSink) -> str:
        """The report on an image that was made; where it could not be scanned, it says so."""
        work = functools.partial(scan, self._audit, inventory, image_id, self._settings.state)
        report = with_heartbeat(on_event, Progress("scanning", 0, 0), work)
        if report.summary.error:
            log.warning("image %s was not scanned: %s", image_id, report.summary.error)
        return report.to_text()


class _Begun(Exception):
    """Another leads the conversion now."""


class _Reporter:
    """Passes a new event on at once, and an unchanged one every few seconds."""

    def __init__(self, on_event: EventSink) -> None:
        self._last: Event = Queued()
        self._report = Pace(BEAT, lambda: on_event(self._last))

    def __call__(self, event: Event) -> None:
        if event == self._last:
            self._report()
        else:
            self._last = event
            self._report.now()
