"""Conversions that go on: each in a worker process of its own, watched by everyone who asked for the same.

Who opened the very same file joins the conversion of it. The same image out of another file waits for the first, and is
then only read and checked: nobody is given an image that they have not shown to have.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import IO, Any

from gateway.protocol import raised
from gateway.sources.opened import OpenedSource
from gateway.store import StoreWriter
from udi.config import GatewayConfig
from udi.facts import Facts
from udiroot.errors import TimedOut, UdiError, UpstreamFailed

_STANDSTILL = 900.0
"""Seconds that a worker may say nothing."""
_HEARTBEAT = 5.0

log = logging.getLogger(__name__)


class Conversion:
    """One conversion, as those who wait for it see it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._event: dict[str, Any] = {"event": "queued"}
        self._version = 0
        self._image_id = ""
        self._error: UdiError | None = None
        self._finished = False
        self.users = 0

    def tell(self, event: dict[str, Any]) -> None:
        with self._changed:
            self._event = event
            self._version += 1
            self._changed.notify_all()

    def finish(self, image_id: str, error: UdiError | None) -> None:
        with self._changed:
            self._image_id, self._error, self._finished = image_id, error, True
            self._changed.notify_all()

    def events(self) -> Iterator[dict[str, Any]]:
        """What happens until the end; the last thing again every few seconds, so that silence means a dead service."""
        seen = -1
        while True:
            with self._changed:
                if not self._finished and self._version == seen:
                    self._changed.wait(_HEARTBEAT)
                if self._finished:
                    return
                seen, event = self._version, self._event
            yield event

    def result(self) -> str:
        """The image's id, once `events` has ended. Raises what went wrong."""
        if self._error:
            raise type(self._error)(self._error.message, self._error.hint)
        return self._image_id


class Conversions:
    """Starts conversions, joins those that ask for the same, and keeps their number in bounds."""

    def __init__(self, settings: GatewayConfig, store: StoreWriter) -> None:
        self._settings = settings
        self._store = store
        self._left = threading.Condition()
        self._going: dict[tuple[object, ...], Conversion] = {}
        self._slots = threading.BoundedSemaphore(settings.workers)
        self._by_id: dict[str, threading.Lock] = {}

    @contextlib.contextmanager
    def obtain(self, source: OpenedSource) -> Iterator[Conversion]:
        """A conversion of `source`, new or joined. Takes the source's descriptors over.

        It goes on when the caller leaves. Until the caller leaves, the image stays even without a name.
        """
        identity = source.identity()
        with self._left:
            conversion = self._going.get(identity)
            if conversion is None:
                conversion = self._going[identity] = Conversion()
                threading.Thread(target=self._run, args=(identity, conversion, source), daemon=True).start()
            else:
                source.close()
            conversion.users += 1
        try:
            yield conversion
        finally:
            with self._left:
                conversion.users -= 1
                self._left.notify_all()

    def _run(self, identity: tuple[object, ...], conversion: Conversion, source: OpenedSource) -> None:
        with contextlib.ExitStack() as held:
            image_id, failure = "", None
            try:
                with self._slots:
                    image_id = self._convert(conversion, source, held)
            except UdiError as error:
                failure = error
            except Exception:
                log.exception("a conversion failed for a reason of ours")
                failure = UpstreamFailed("the gateway failed at this image", "its log tells more")
            finally:
                source.close()
            with self._left:
                if failure:
                    del self._going[identity]  # the next who asks starts anew
            conversion.finish(image_id, failure)
            with self._left:
                self._left.wait_for(lambda: not conversion.users)
                self._going.pop(identity, None)

    def _convert(self, conversion: Conversion, source: OpenedSource, held: contextlib.ExitStack) -> str:
        """Run a worker to its end and publish what it made. Returns the image's id."""
        temporary = self._store.temporary()
        worker = _Worker(source, temporary, self._settings)
        try:
            identified = worker.until("identified", conversion)
            image_id = str(identified["id"])
            held.enter_context(self._store.expecting(image_id))
            with self._only_one(image_id):
                if not self._store.has(image_id):
                    worker.say("convert")
                    done = worker.until("done", conversion)
                    conversion.tell({"event": "storing"})
                    self._store.publish(temporary, Facts.from_json(done["facts"]))
                    log.info("image %s is in the store", image_id)
                    return image_id
            worker.say("verify")
            worker.until("done", conversion)
            return image_id
        finally:
            worker.end()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)

    @contextlib.contextmanager
    def _only_one(self, image_id: str) -> Iterator[None]:
        with self._left:
            lock = self._by_id.setdefault(image_id, threading.Lock())
        with lock:
            yield


class _Worker:
    """The process of `gateway.worker`, and the lines that it says."""

    def __init__(self, source: OpenedSource, output: str, settings: GatewayConfig) -> None:
        job = {
            "parent": os.getpid(),
            "kind": source.kind,
            "tag": source.tag,
            "files": source.files,
            "output": output,
            "settings": dataclasses.asdict(settings),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-m", "gateway.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=tuple(source.files.values()),
            start_new_session=True,
        )
        self._waiting = b""
        self.say(json.dumps(job))

    def say(self, line: str) -> None:
        stdin = self._pipe(self._process.stdin)
        with contextlib.suppress(BrokenPipeError):  # then it is gone, which `until` tells with its status
            stdin.write(line.encode() + b"\n")
            stdin.flush()

    def until(self, wanted: str, conversion: Conversion) -> dict[str, Any]:
        """Its next event of the kind `wanted`; progress on the way is told. Raises the error that it tells of."""
        while True:
            event = self._next()
            if event["event"] == wanted:
                return event
            if event["event"] == "error":
                raise raised(event)
            conversion.tell(event)

    def end(self) -> None:
        """Nothing of it is left, its packer included: they share a session of their own."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._pipe(self._process.stdin).close()
        self._pipe(self._process.stdout).close()

    def _next(self) -> dict[str, Any]:
        output = self._pipe(self._process.stdout).fileno()
        deadline = time.monotonic() + _STANDSTILL
        while b"\n" not in self._waiting:
            ready, _, _ = select.select([output], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimedOut(f"the conversion said nothing for {_STANDSTILL:.0f} s")
            piece = os.read(output, 1 << 16)
            if not piece:
                raise UpstreamFailed(f"the conversion ended before it was done ({self._status()})", "try again")
            self._waiting += piece
        line, _, self._waiting = self._waiting.partition(b"\n")
        event: dict[str, Any] = json.loads(line)
        return event

    def _status(self) -> str:
        status = self._process.wait(_HEARTBEAT)
        return f"signal {-status}" if status < 0 else f"exit code {status}"

    @staticmethod
    def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
        assert pipe
        return pipe
