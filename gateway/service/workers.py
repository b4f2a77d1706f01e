"""The worker processes of conversions (`gateway.service.worker`): started, read from, killed with their children."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from typing import IO

from gateway.image.formats.packer import FEW_ARENAS
from gateway.service.elsewhere import Place
from gateway.service.heartbeat import BEAT
from gateway.service.lifeline import SILENCE, ServiceEnd
from gateway.service.order import Order, Verdict
from gateway.wire import events
from gateway.wire.events import Begun, Converted, Done, Event, EventSink, Failed, Identified, Queued
from udi.facts import Facts
from udi.gatewayconfig import GatewayConfig
from udi.oserrors import reason
from udi.parentdeath import die_with_caller
from udiroot.errors import TimedOut, UpstreamFailed, UsageError, printable

_STANDSTILL = 900.0
"""Seconds that a worker may send nothing new."""
_MISSED = 2 * BEAT
"""Seconds without a word after which the end of srun or ssh is taken for the silence of the host: its worker would have
said something meanwhile."""
_GRACE = 5.0
"""Seconds that srun or ssh has to end, when its input has ended and when it gets SIGTERM."""


class Worker:
    """One process of `gateway.service.worker`. A context manager: at its end, no process is left.

    Elsewhere (`gateway.service.elsewhere`) it is the process of whatever started the worker there; the worker itself
    ends when its input does.
    """

    def __init__(
        self, place: Place, output: str, settings: GatewayConfig, inventory: str = "", max_inventory_bytes: int = 0
    ) -> None:
        """`inventory` is the file that it lists the image in, where that is wanted."""
        self._is_here = place.is_here
        self._program = place.command[0]
        self._host = "unknown"
        try:
            self._process = subprocess.Popen(
                place.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=place.origin.descriptors(),
                start_new_session=True,
                env={**os.environ, **FEW_ARENAS},
                cwd=None if place.is_here else "/",
                preexec_fn=None if place.is_here else _end_with_caller,
            )
        except OSError as error:
            raise UpstreamFailed(f"cannot run {self._program}: {reason(error)}", "see gateway.worker_prefix") from error
        self._lifeline = None if place.is_here else ServiceEnd(self._pipe(self._process.stdin))
        self._waiting = b""
        self._limit = settings.conversion_seconds
        self._left = float(self._limit)
        """Seconds that it may still be waited for; those that it waits itself, for a verdict, do not count."""
        self._last: Event = Queued()
        self._heard = self._moved = 0.0
        """When it last sent anything, and anything new; 0.0 before it was started elsewhere."""
        self.converted = Converted("")
        """What it has answered."""
        parent = os.getpid() if place.is_here else 0
        self._send(Order(parent, output, settings, place.origin, inventory, max_inventory_bytes).to_json())

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        """Kill its session, its packer included; elsewhere, after a moment in which it can end there."""
        if self._lifeline:
            self._lifeline.close()
            for number in (0, signal.SIGTERM):
                with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                    if number:
                        os.killpg(self._process.pid, number)
                    self._process.wait(_GRACE)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if not self._lifeline:
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
        if self._lifeline:
            self._lifeline.send(line)
            return
        stdin = self._pipe(self._process.stdin)
        with contextlib.suppress(BrokenPipeError):  # it has died, which reading from it reports with its status
            stdin.write(line.encode() + b"\n")
            stdin.flush()

    def _until(self, kind: type[Identified] | type[Done[Converted]], on_event: EventSink) -> Event:
        """Its next event of this kind; those before it are passed on."""
        end = time.monotonic() + self._left
        if self._is_here or self._heard:
            self._heard = self._moved = time.monotonic()
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
            if isinstance(event, Begun):
                self._host = printable(event.host)
                continue
            if event != self._last:
                self._moved = time.monotonic()
            self._last = event
            on_event(event)

    def _next(self, on_event: EventSink, end: float) -> Event:
        output = self._pipe(self._process.stdout).fileno()
        readable = select.poll()
        readable.register(output, select.POLLIN)
        while b"\n" not in self._waiting:
            left = end - time.monotonic()
            if left <= 0:
                raise TimedOut(
                    f"the conversion took longer than {self._limit} s", "limit set by gateway.conversion_seconds"
                )
            self._check_alive()
            if not readable.poll(min(BEAT, left) * 1000):
                on_event(self._last)
                continue
            piece = os.read(output, 1 << 16)
            if not piece:
                raise self._died()
            self._heard = time.monotonic()
            self._moved = self._moved or self._heard
            self._waiting += piece
        line, _, self._waiting = self._waiting.partition(b"\n")
        try:
            return events.from_json(line, Converted)
        except UsageError as error:  # nothing that a user wrote: a shell's greeting, or what srun or ssh say
            said = printable(line.decode("utf-8", "backslashreplace"))
            raise UpstreamFailed(
                f"{self._program} printed what no conversion says: '{said}'", "see gateway.worker_prefix"
            ) from error

    def _check_alive(self) -> None:
        """Raises TimedOut, UpstreamFailed. One that was not started yet may wait for a host."""
        now = time.monotonic()
        if self._moved and now > self._moved + _STANDSTILL:
            raise TimedOut(f"the conversion made no progress for {_STANDSTILL:.0f} s")
        if not self._is_here and self._heard and now > self._heard + SILENCE:
            raise self._silent(now - self._heard)

    def _died(self) -> UpstreamFailed:
        if self._is_here:
            return UpstreamFailed(f"the conversion terminated unexpectedly ({self._status()})", "try again")
        ended = f"{self._program} ended with {self._status()}"
        if not self._heard:
            return UpstreamFailed(
                f"no host for the conversion: {ended}", "see gateway.worker_prefix and the gateway's log"
            )
        silent = time.monotonic() - self._heard
        if silent > _MISSED:
            return self._silent(silent, f", then {ended}")
        return UpstreamFailed(f"the conversion terminated unexpectedly on {self._host} ({ended})", "try again")

    def _silent(self, seconds: float, then: str = "") -> UpstreamFailed:
        return UpstreamFailed(
            f"the host of the conversion, {self._host}, has fallen silent: nothing came for {seconds:.0f} s{then}",
            "that is the site's fault, and not the image's; try again",
        )

    def _status(self) -> str:
        try:
            status = self._process.wait(BEAT)
        except subprocess.TimeoutExpired:  # its output has ended, though: srun may wait for what does not come
            return "no exit code yet"
        return f"signal {-status}" if status < 0 else f"exit code {status}"

    @staticmethod
    def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
        assert pipe
        return pipe


def _end_with_caller() -> None:
    """In the child: srun and ssh pass on that the service is gone."""
    die_with_caller(signal.SIGTERM)
