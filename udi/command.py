"""Running a program of the site: an argument list, a clean environment, a deadline, and bounded output.

The one place where this project starts the commands of Cray, Torque and the site. There is never a shell between us and
the program; when the deadline passes, the whole session of the command is killed, and every byte that it had printed is
still there. (The `sh` package was tried here: its timeout ends the first process alone, and what a command printed last
can be missing after `wait`.)
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO

from udiroot.errors import TimedOut, UpstreamFailed, printable

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C", "LC_ALL": "C"}
"""What a command of the site gets, whoever called us."""

_prctl = ctypes.CDLL(None, use_errno=True).prctl  # looked up here, since a forked child of a thread should not
_PR_SET_PDEATHSIG = 1
_MAX_OUTPUT = 64 << 20
"""Bytes of output that are kept: a machine-wide inventory has some tens of megabytes."""


@dataclass(frozen=True)
class Finished:
    """A command that ended by itself."""

    program: str
    exit_code: int
    stdout: bytes
    stderr: bytes

    def require_success(self) -> Finished:
        """Itself; raises UpstreamFailed, with the command's own last words, where its status is not 0."""
        if self.exit_code:
            words = (self.stderr.strip() or self.stdout.strip()).decode("utf-8", "replace").splitlines()
            said = f": {printable(words[-1])}" if words else ""
            raise UpstreamFailed(f"{self.program} exited with {self.exit_code}{said}")
        return self


class Deadline:
    """A moment after which nothing is waited for any more. Callers hand on what is left of their own."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self, at_most: float | None = None) -> float:
        """Seconds left, never below 0, and never more than `at_most`."""
        left = max(0.0, self._end - time.monotonic())
        return left if at_most is None else min(left, at_most)

    @property
    def passed(self) -> bool:
        return self.left() <= 0


class Late(TimedOut):
    """A command that did not end in time; `partial` is what it had printed."""

    def __init__(self, message: str, partial: bytes) -> None:
        super().__init__(message)
        self.partial = partial


def run(
    argv: Sequence[str],
    *,
    seconds: float,
    stdin: bytes = b"",
    on_line: Callable[[str], bool] | None = None,
) -> Finished:
    """Run `argv`, whose first word is an absolute path, for at most `seconds`.

    `on_line`, if given, sees each line of stdout and stderr as it comes (they are then mixed, and both kept as stdout);
    when it answers True, enough was seen, and the command is ended and counts as a success. Raises UpstreamFailed when
    the program cannot be run or was ended by a signal, Late when the time was over.
    """
    program = argv[0]
    if seconds <= 0:
        raise Late(f"no time left to run {program}", b"")
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if on_line else subprocess.PIPE,
            env=ENVIRONMENT,
            cwd="/",
            start_new_session=True,
            preexec_fn=die_with_caller,
        )
    except OSError as error:
        raise UpstreamFailed(
            f"{program} cannot be run: {error.strerror}", "is its path right in the site's configuration?"
        ) from error
    watch = _Watch(process, on_line)
    try:
        verdict = watch.until(time.monotonic() + seconds, stdin)
    finally:
        _end_session(process)
    if verdict == "late":
        raise Late(f"{program} did not end within {seconds:.0f} seconds", watch.stdout)
    if verdict == "enough":
        return Finished(program, 0, watch.stdout, watch.stderr)
    if process.returncode < 0:
        raise UpstreamFailed(f"{program} was ended by signal {-process.returncode}")
    return Finished(program, process.returncode, watch.stdout, watch.stderr)


class _Watch:
    """Reads what a command prints until it ends, enough was seen, or the time is over."""

    def __init__(self, process: subprocess.Popen[bytes], on_line: Callable[[str], bool] | None) -> None:
        self._process = process
        self._on_line = on_line
        self._kept = {"stdout": bytearray(), "stderr": bytearray()}
        self._unfinished = b""

    @property
    def stdout(self) -> bytes:
        return bytes(self._kept["stdout"])

    @property
    def stderr(self) -> bytes:
        return bytes(self._kept["stderr"])

    def until(self, end: float, stdin: bytes) -> str:
        """`ended`, `enough` or `late`. A child that holds the pipes open is not waited for once the command is gone."""
        with selectors.DefaultSelector() as ready:
            for name in ("stdout", "stderr"):
                stream: IO[bytes] | None = getattr(self._process, name)
                if stream:
                    os.set_blocking(stream.fileno(), False)
                    ready.register(stream, selectors.EVENT_READ, name)
            if stdin and self._process.stdin:
                os.set_blocking(self._process.stdin.fileno(), False)
                ready.register(self._process.stdin, selectors.EVENT_WRITE, "stdin")
            pending = memoryview(stdin)
            while True:
                left = end - time.monotonic()
                if left <= 0:
                    return "late"
                gone = self._process.poll() is not None
                events = ready.select(0 if gone else min(left, 0.02))
                for key, _ in events:
                    if key.data == "stdin":
                        pending = self._feed(key.fileobj, pending, ready)
                    elif not self._take(key.fileobj, key.data, ready):
                        return "enough"
                if gone and not any(key.data != "stdin" for key, _ in events):
                    return "ended"

    def _feed(self, pipe: object, pending: memoryview, ready: selectors.BaseSelector) -> memoryview:
        assert hasattr(pipe, "fileno") and hasattr(pipe, "close")
        try:
            pending = pending[os.write(pipe.fileno(), pending[:65536]) :]
        except BrokenPipeError:
            pending = pending[len(pending) :]
        if not pending:
            ready.unregister(pipe)
            pipe.close()
        return pending

    def _take(self, stream: object, name: str, ready: selectors.BaseSelector) -> bool:
        """Keep what is there; False once `on_line` has seen enough."""
        assert hasattr(stream, "fileno")
        chunk = os.read(stream.fileno(), 1 << 18)
        if not chunk:
            ready.unregister(stream)
        self._kept[name] += chunk[: _MAX_OUTPUT - len(self._kept[name])]
        if self._on_line is None:
            return True
        *lines, self._unfinished = (self._unfinished + chunk).split(b"\n")
        if not chunk and self._unfinished:
            lines, self._unfinished = [self._unfinished], b""
        self._unfinished = self._unfinished[-65536:]
        return not any(self._on_line(line.decode("utf-8", "replace")) for line in lines)


def die_with_caller() -> None:
    """In the child: a hook that is killed must not leave, say, a fan-out behind that goes on setting up nodes."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _end_session(process: subprocess.Popen[bytes]) -> None:
    """Leave nothing of the command behind: it leads a session and process group of its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream and not stream.closed:
            try:
                stream.close()
            except BrokenPipeError:
                continue
