"""Conversions that go on: each in a worker process of its own, watched by everyone who asked for the same.

Those who ask may be threads of one service or processes of `udi-gateway handle`: locks say who leads a conversion, and
the history tells the others how far it is. Should the leader's process be killed, the next of them takes over with the
files that it has itself.

Who opened the very same file joins the conversion of it. The same image out of another file waits for the first, and is
then only read and checked: nobody is given an image that they have not shown to have.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import time
from collections.abc import Iterator
from typing import Any

from gateway.service.heartbeat import BEAT
from gateway.service.history import History, Row
from gateway.service.origins import Origin
from gateway.service.workers import Tell, Worker
from gateway.store.locks import Holder, Locks
from gateway.store.writer import StoreWriter
from udi.config import GatewayConfig
from udi.facts import Facts
from udiroot.errors import UdiError, UpstreamFailed

_LOOK = 0.2
"""Seconds between two looks at a conversion that somebody else leads."""
_LONG = 7 * 86400.0

log = logging.getLogger(__name__)


class Conversions:
    """Leads conversions, joins those that ask for the same, and keeps their number in bounds."""

    def __init__(self, settings: GatewayConfig, store: StoreWriter, history: History, locks: Locks) -> None:
        self._settings = settings
        self._store = store
        self._history = history
        self._locks = locks

    @contextlib.contextmanager
    def obtain(self, source: Origin, what: str, tell: Tell) -> Iterator[str]:
        """The id of the image in `source`, once it is in the store. Takes the source over.

        Until the caller leaves, the image stays even without a name. Raises what went wrong.
        """
        with contextlib.ExitStack() as held:
            held.callback(source.close)
            key = hashlib.sha256(repr(source.identity()).encode()).hexdigest()
            told = _Told(tell)
            while True:
                with self._locks.holder() as holder:
                    if holder.try_take(f"conversion {key}"):
                        image_id = self._lead(key, what, source, told, held)
                        break
                    row = self._history.running(key)
                    found = self._follow(row, holder, told, held) if row else ""
                if found:
                    image_id = found
                    break
                time.sleep(_LOOK / 10)
            yield image_id

    def _follow(self, row: Row, holder: Holder, told: _Told, held: contextlib.ExitStack) -> str:
        """Watch a conversion to its end. Returns the image's id, or nothing where one must begin anew."""
        expected = ""
        while True:
            now = self._history.row(row.number)
            if now is None or now.state == "lost":
                return ""  # the history was made anew, or its process was killed and another began after it
            if now.image and not expected:
                held.enter_context(self._store.expecting(now.image))
                expected = now.image
            if now.state == "failed":
                error = now.error()
                assert error
                raise error
            if now.state == "done":
                return expected if self._store.has(expected) else ""
            told(now.event)
            if holder.try_take(f"conversion {row.key}"):
                holder.release(f"conversion {row.key}")
                again = self._history.row(row.number)
                if again is None or again.state == "running":
                    return ""  # its process was killed
                continue
            time.sleep(_LOOK)

    def _lead(self, key: str, what: str, source: Origin, told: _Told, held: contextlib.ExitStack) -> str:
        number = self._history.begin(key, what)

        def tell(event: dict[str, Any]) -> None:
            self._history.tell(number, event)
            told(event)

        try:
            with self._locks.holder() as holder:
                self._take_slot(holder, tell)
                image_id = self._convert(number, source, tell, held)
        except UdiError as error:
            self._history.end(number, error)
            raise
        except Exception as error:
            log.exception("a conversion failed for a reason of ours")
            failure = UpstreamFailed("the gateway failed at this image", "its log tells more")
            self._history.end(number, failure)
            raise failure from error
        self._history.end(number, None)
        return image_id

    def _take_slot(self, holder: Holder, tell: Tell) -> None:
        """One of the `workers` places."""
        said = 0.0
        while not any(holder.try_take(f"worker {number}") for number in range(self._settings.workers)):
            if time.monotonic() - said > BEAT:
                said = time.monotonic()
                tell({"event": "queued"})
            time.sleep(_LOOK / 4)

    def _convert(self, number: int, source: Origin, tell: Tell, held: contextlib.ExitStack) -> str:
        """Run a worker to its end and publish what it made. Returns the image's id."""
        with self._store.temporary() as temporary, Worker(source, temporary, self._settings) as worker:
            image_id = str(worker.until("identified", tell)["id"])
            held.enter_context(self._store.expecting(image_id))
            self._history.identified(number, image_id)
            with self._locks.holder() as holder:
                last = time.monotonic()

                def waiting() -> None:
                    nonlocal last
                    if time.monotonic() - last > BEAT:
                        last = time.monotonic()
                        tell({"event": "queued"})

                holder.take(f"making {image_id}", seconds=_LONG, waiting=waiting)
                if not self._store.has(image_id):
                    worker.say("convert")
                    done = worker.until("done", tell)
                    tell({"event": "storing"})
                    self._store.publish(temporary, Facts.from_json(done["facts"]))
                    log.info("image %s is in the store", image_id)
                    return image_id
            worker.say("verify")
            worker.until("done", tell)
            return image_id


class _Told:
    """Tells what is new at once, and what is not every few seconds."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._last: dict[str, Any] = {}
        self._when = 0.0

    def __call__(self, event: dict[str, Any]) -> None:
        if event != self._last or time.monotonic() - self._when > BEAT:
            self._last, self._when = event, time.monotonic()
            self._tell(event)
