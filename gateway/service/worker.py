"""One conversion in a process of its own, so that a crash or a kill leaves the service unharmed.

Started by `gateway.service.workers`, with the user's files as descriptors where the image comes in files. Its input is
an order (one line of JSON, `gateway.service.order`), and later a verdict, `convert` or `verify`. Its output is lines of
`gateway.wire.events`: `begun` where that is another host; progress; `identified` once the image's id and name are
known, after which it waits for the verdict; then `done` with the facts, or `error`. It is killed when its parent dies;
on another host (`gateway.service.elsewhere`), when its input ends or stops.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import resource
import signal
import socket
import sys
import threading
from typing import Protocol

from gateway.audit.inventory import InventoryMaker
from gateway.image.convert import convert, verify
from gateway.service.lifeline import WorkerEnd
from gateway.service.order import Order, Verdict
from gateway.service.origins import Candidate
from gateway.service.pace import Pace
from gateway.wire import events
from gateway.wire.events import Begun, Converted, Done, Event, Failed, Identified, Progress, Queued
from udi.gatewayconfig import GatewayConfig
from udiroot.errors import ConfigError, ImageInvalid, UdiError, UpstreamFailed, printable

_PR_SET_PDEATHSIG = 1
_INTERVAL = 0.2
"""Seconds between two reports of progress."""
_output = threading.Lock()


def main() -> None:
    """Carry out one order. The exit code is 0 when the last event tells the outcome."""
    while (line := sys.stdin.readline()) == "\n":
        pass  # of the lifeline, which may come first
    if not line.endswith("\n"):
        sys.exit(1)  # the service was killed before it had sent all
    try:
        order = Order.from_json(line)
    except ConfigError as error:
        emit(Failed.of(error))
        return
    progress = _Reporter()
    if order.parent:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != order.parent:
            sys.exit(1)  # it died before the kernel was asked for its signal
        last = _carried_out(order, progress, sys.stdin)
    else:
        emit(Begun(socket.gethostname()))
        service = WorkerEnd(sys.stdin, progress.repeat)
        last = _carried_out(order, progress, service)
        service.release()
    if last:
        emit(last)


def _carried_out(order: Order, progress: _Reporter, service: Lines) -> Event | None:
    """The last event; None where nobody waits for it any more."""
    most = order.settings.conversion_memory_bytes
    limit_memory(most)
    try:
        return _run(order, progress, service)
    except UdiError as error:
        return Failed.of(error)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "start new thread" not in str(error):
            raise
        message = f"converting the image takes more than {most} bytes of memory"
        return Failed.of(ImageInvalid(message, "limit set by gateway.conversion_memory_bytes"))
    except OSError as error:
        return Failed.of(UpstreamFailed(f"the gateway could not convert the image: {printable(error)}"))


def _run(order: Order, progress: _Reporter, service: Lines) -> Done[Converted] | None:
    """An image that was checked before is not checked again."""
    with order.origin.open(order.settings, progress) as candidate:
        emit(Identified(candidate.id, candidate.name))
        verdict = await_verdict(service)
        if verdict is None:
            return None
        facts = ""
        if verdict is Verdict.CONVERT or not candidate.is_known():
            facts = _process(candidate, verdict, order, progress)
        fetched = candidate.fetched()
        return Done(Converted(facts, fetched.layers, fetched.bytes, fetched.cached))


def _process(candidate: Candidate, verdict: Verdict, order: Order, progress: _Reporter) -> str:
    """Convert or verify the image. Returns its facts as JSON; nothing after a verification."""
    settings: GatewayConfig = dataclasses.replace(order.settings, architecture=candidate.arch)
    image = candidate.image()
    facts = ""
    try:
        if verdict is Verdict.CONVERT:
            facts = convert(image, order.output, settings, progress, _onlooker(candidate, order)).to_json()
        else:
            verify(image, settings, progress)
    except ImageInvalid:
        candidate.reject()
        raise
    candidate.accept()
    progress.end()
    return facts


def _onlooker(candidate: Candidate, order: Order) -> InventoryMaker | None:
    if not order.inventory:
        return None
    return InventoryMaker(order.inventory, candidate.id, candidate.arch, order.max_inventory_bytes)


def limit_memory(most: int) -> None:
    """A bound on the addresses of this process and of each that it starts, such as the packer."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


class Lines(Protocol):
    """What the service sends: a text file, or `gateway.service.lifeline.WorkerEnd`."""

    def readline(self) -> str:
        """The next line; empty at the end."""


def await_verdict(service: Lines) -> Verdict | None:
    """The verdict of the service; None where it has closed the pipe."""
    line = service.readline().strip()
    return Verdict(line) if line else None


def emit(event: Event) -> None:
    """Write one event, from any thread. Where the service is gone nobody waits for more, and the process ends at once,
    as if it had been killed with it."""
    with _output:
        try:
            sys.stdout.write(events.to_json(event) + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            os._exit(1)


class _Reporter:
    """Reports progress as events, a few a second. Layers that are being fetched report from several threads."""

    def __init__(self) -> None:
        self._stage, self._total, self._done = "", 0, 0
        self._layers: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()
        self._last: Event = Queued()
        self._report = Pace(_INTERVAL, self._emit)

    def stage(self, name: str, total: int) -> None:
        """A stage begins."""
        self.end()
        self._stage, self._total, self._done, self._layers = name, total, 0, {}
        self._report.now()

    def end(self) -> None:
        """Report how far the stage came in the end."""
        if self._done:
            self._report.now()

    def advance(self, count: int) -> None:
        """`count` more bytes are done."""
        self._done += count
        self._report()

    def layer(self, digest: str, done: int, total: int) -> None:
        """`done` bytes of one layer are done."""
        with self._lock:
            self._layers[digest.removeprefix("sha256:")[:12]] = (done, total)
            self._done = sum(done for done, _ in self._layers.values())
            if done == total:
                self._report.now()
            else:
                self._report()

    def repeat(self) -> None:
        """Report what was reported last, from another thread."""
        emit(self._last)

    def _emit(self) -> None:
        layers = tuple((name, done, total) for name, (done, total) in self._layers.items())
        self._last = Progress(self._stage, self._done, self._total, layers)
        emit(self._last)


if __name__ == "__main__":
    main()
