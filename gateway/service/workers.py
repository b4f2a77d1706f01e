"""The worker processes of conversions (`gateway.service.worker`): started, read from, and ended with their children."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import IO, Any

from gateway.service.heartbeat import BEAT
from gateway.service.origins import Origin
from gateway.wire.protocol import raised
from udi.config import GatewayConfig
from udiroot.errors import TimedOut, UpstreamFailed

_STANDSTILL = 900.0
"""Seconds that a worker may say nothing."""

Tell = Callable[[dict[str, Any]], None]


class Worker:
    """The process of `gateway.service.worker`, and the lines that it prints. A context manager: it leaves nothing."""

    def __init__(self, source: Origin, output: str, settings: GatewayConfig) -> None:
        job = {
            "parent": os.getpid(),
            **source.job(),
            "output": output,
            "settings": dataclasses.asdict(settings),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-m", "gateway.service.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=source.descriptors(),
            start_new_session=True,
        )
        self._waiting = b""
        self._last: dict[str, Any] = {"event": "queued"}
        self.say(json.dumps(job))

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing of it is left, its packer included: they share a session of their own."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._pipe(self._process.stdin).close()
        self._pipe(self._process.stdout).close()

    def say(self, line: str) -> None:
        stdin = self._pipe(self._process.stdin)
        with contextlib.suppress(BrokenPipeError):  # then it is gone, which `until` tells with its status
            stdin.write(line.encode() + b"\n")
            stdin.flush()

    def until(self, wanted: str, tell: Tell) -> dict[str, Any]:
        """Its next event of the kind `wanted`; progress on the way is told. Raises the error that it tells of."""
        while True:
            event = self._next(tell)
            if event["event"] == wanted:
                return event
            if event["event"] == "error":
                raise raised(event)
            self._last = event
            tell(event)

    def _next(self, tell: Tell) -> dict[str, Any]:
        output = self._pipe(self._process.stdout).fileno()
        readable = select.poll()
        readable.register(output, select.POLLIN)
        deadline = time.monotonic() + _STANDSTILL
        while b"\n" not in self._waiting:
            if not readable.poll(BEAT * 1000):
                if time.monotonic() > deadline:
                    raise TimedOut(f"the conversion said nothing for {_STANDSTILL:.0f} s")
                tell(self._last)
                continue
            piece = os.read(output, 1 << 16)
            if not piece:
                raise UpstreamFailed(f"the conversion ended before it was done ({self._status()})", "try again")
            self._waiting += piece
        line, _, self._waiting = self._waiting.partition(b"\n")
        event: dict[str, Any] = json.loads(line)
        return event

    def _status(self) -> str:
        status = self._process.wait(BEAT)
        return f"signal {-status}" if status < 0 else f"exit code {status}"

    @staticmethod
    def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
        assert pipe
        return pipe
