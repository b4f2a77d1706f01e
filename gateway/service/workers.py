"""The worker processes of conversions (`gateway.service.worker`): started, read from, killed with their children."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from typing import IO

from gateway.image.formats.packer import FEW_ARENAS
from gateway.service.heartbeat import BEAT
from gateway.service.order import Order, Verdict
from gateway.service.origins import Origin
from gateway.wire import events
from gateway.wire.events import Converted, Done, Event, EventSink, Failed, Identified, Queued
from udi.config import GatewayConfig
from udi.facts import Facts
from udiroot.errors import TimedOut, UpstreamFailed

_STANDSTILL = 900.0
"""Seconds that a worker may send nothing."""


class Worker:
    """One process of `gateway.service.worker`. A context manager: at its end, no process is left."""

    def __init__(
        self, origin: Origin, output: str, settings: GatewayConfig, inventory: str = "", max_inventory_bytes: int = 0
    ) -> None:
        """`inventory` is the file that it lists the image in, where that is wanted."""
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-m", "gateway.service.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=origin.descriptors(),
            start_new_session=True,
            env={**os.environ, **FEW_ARENAS},
        )
        self._waiting = b""
        self._limit = settings.conversion_seconds
        self._left = float(self._limit)
        """Seconds that it may still be waited for; those that it waits itself, for a verdict, do not count."""
        self._last: Event = Queued()
        self.converted = Converted("")
        """What it has answered."""
        self._send(Order(os.getpid(), output, settings, origin, inventory, max_inventory_bytes).to_json())

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        """Kill its session, its packer included."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        with contextlib.suppress(BrokenPipeError):
            self._pipe(self._process.stdin).close()
        self._pipe(self._process.stdout).close()

    def identified(self, on_event: EventSink) -> Identified:
        """Which image the origin has; `on_event` gets the progress until then.

        Raises the error that the worker reports; UpstreamFailed, TimedOut.
        """
        event = self._until(Identified, on_event)
        assert isinstance(event, Identified)
        return event

    def convert(self, on_event: EventSink) -> Facts:
        """Let it make the image file. Raises as `identified` does."""
        self._send(Verdict.CONVERT.value)
        return Facts.from_json(self._converted(on_event).facts)

    def verify(self, on_event: EventSink) -> None:
        """Let it check all layers and make nothing. Raises as `identified` does."""
        self._send(Verdict.VERIFY.value)
        self._converted(on_event)

    def _converted(self, on_event: EventSink) -> Converted:
        event = self._until(Done, on_event)
        assert isinstance(event, Done)
        self.converted = event.answer
        return self.converted

    def _send(self, line: str) -> None:
        stdin = self._pipe(self._process.stdin)
        with contextlib.suppress(BrokenPipeError):  # it has died, which reading from it reports with its status
            stdin.write(line.encode() + b"\n")
            stdin.flush()

    def _until(self, kind: type[Identified] | type[Done[Converted]], on_event: EventSink) -> Event:
        """Its next event of this kind; those before it are passed on."""
        end = time.monotonic() + self._left
        try:
            return self._awaited(kind, on_event, end)
        finally:
            self._left = end - time.monotonic()

    def _awaited(self, kind: type[Identified] | type[Done[Converted]], on_event: EventSink, end: float) -> Event:
        while True:
            event = self._next(on_event, end)
            if isinstance(event, kind):
                return event
            if isinstance(event, Failed):
                raise event.error()
            self._last = event
            on_event(event)

    def _next(self, on_event: EventSink, end: float) -> Event:
        output = self._pipe(self._process.stdout).fileno()
        readable = select.poll()
        readable.register(output, select.POLLIN)
        deadline = time.monotonic() + _STANDSTILL
        while b"\n" not in self._waiting:
            left = end - time.monotonic()
            if left <= 0:
                raise TimedOut(
                    f"the conversion took longer than {self._limit} s", "limit set by gateway.conversion_seconds"
                )
            if not readable.poll(min(BEAT, left) * 1000):
                if time.monotonic() > deadline:
                    raise TimedOut(f"the conversion made no progress for {_STANDSTILL:.0f} s")
                on_event(self._last)
                continue
            piece = os.read(output, 1 << 16)
            if not piece:
                raise UpstreamFailed(f"the conversion terminated unexpectedly ({self._status()})", "try again")
            self._waiting += piece
        line, _, self._waiting = self._waiting.partition(b"\n")
        return events.from_json(line, Converted)

    def _status(self) -> str:
        status = self._process.wait(BEAT)
        return f"signal {-status}" if status < 0 else f"exit code {status}"

    @staticmethod
    def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
        assert pipe
        return pipe
