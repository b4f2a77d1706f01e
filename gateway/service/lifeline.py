"""Both ends of a conversion whose worker runs on another host (`gateway.worker_prefix`), each of which must notice that
the other is gone.

What connects them (srun, ssh) can lose either end without a word: a host without power closes no connection. So both
send something every few seconds, the service an empty line and the worker its last event, and either takes the other
for dead when nothing has come for a minute.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from typing import IO

from gateway.service.heartbeat import BEAT

SILENCE = 60.0
"""Seconds without a sign of the other end, after which it is dead."""


class ServiceEnd:
    """The input of a worker: what it is sent, and empty lines in between. Whoever sends does not wait until it is read:
    srun reads nothing before it has a host, and an order may be larger than a pipe."""

    def __init__(self, stream: IO[bytes]) -> None:
        """The stream is closed here, and nowhere else."""
        self._stream = stream
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="lifeline", daemon=True)
        self._writer.start()

    def send(self, line: str) -> None:
        """One line, and at once."""
        self._lines.put(line)

    def close(self) -> None:
        """The worker is not wanted any more: it ends as soon as it sees that."""
        self._lines.put(None)
        self._writer.join(BEAT)

    def _write(self) -> None:
        with contextlib.suppress(BrokenPipeError), self._stream:  # whoever reads its output notices
            while (line := self._next()) is not None:
                self._stream.write(line.encode() + b"\n")
                self._stream.flush()

    def _next(self) -> str | None:
        try:
            return self._lines.get(timeout=BEAT)
        except queue.Empty:
            return ""


class WorkerEnd:
    """The lines that a worker is sent. It is killed, with all that it has started, when they end or stop coming."""

    def __init__(self, stream: IO[str], beat: Callable[[], None]) -> None:
        """`beat` shows the service that the worker lives."""
        self._stream = stream
        self._show = beat
        self._lines: queue.Queue[str] = queue.Queue()
        self._heard = time.monotonic()
        self._released = threading.Event()
        for work in (self._read, self._watch, self._beat):
            threading.Thread(target=work, name="lifeline", daemon=True).start()

    def readline(self) -> str:
        """The next line that is not empty."""
        return self._lines.get()

    def release(self) -> None:
        """The worker has done its work, and ends by itself."""
        self._released.set()

    def _read(self) -> None:
        for line in self._stream:
            self._heard = time.monotonic()
            if line.strip():
                self._lines.put(line)
        self._end()

    def _watch(self) -> None:
        while not self._released.wait(BEAT):
            if time.monotonic() - self._heard > SILENCE:
                self._end()

    def _beat(self) -> None:
        while not self._released.wait(BEAT):
            self._show()

    def _end(self) -> None:
        if not self._released.is_set():
            os.killpg(0, signal.SIGKILL)
