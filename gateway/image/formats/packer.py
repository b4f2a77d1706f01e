"""Running the program that packs a tar stream: fed through a pipe, watched for a standstill, its exit status believed.

A packer may take as long as its image is large, so what bounds it is the time without progress, and the time that it
takes to finish once it has all its input.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence

from udiroot.errors import TimedOut, UdiError, UpstreamFailed, printable

_STANDSTILL = 300.0
"""Seconds without a byte taken, or between the last byte and the exit."""
_PIPE_SIZE = 1 << 20
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "SOURCE_DATE_EPOCH": "0"}

Feed = Callable[[int, Callable[[int], None]], None]
"""Writes the stream to a descriptor, and tells how many bytes went."""


def pack(argv: Sequence[str], feed: Feed, advance: Callable[[int], None]) -> None:
    """Run `argv` with the stream that `feed` writes as its input.

    Raises UpstreamFailed when the program is absent, dies, or says by its exit status that it failed, TimedOut at a
    standstill, and whatever `feed` raises.
    """
    program = os.path.basename(argv[0])
    with tempfile.TemporaryFile() as said:
        process = _start(argv, said.fileno())
        watchdog = _Watchdog(process)

        def wrote(count: int) -> None:
            watchdog.pat()
            advance(count)

        try:
            broken = _feed(process, feed, wrote)
            status = process.wait(_STANDSTILL)
        except subprocess.TimeoutExpired as error:
            raise TimedOut(f"{program} did not end within {_STANDSTILL:.0f} s of its last input") from error
        finally:
            watchdog.stop()
            _end(process)
        if watchdog.barked:
            raise TimedOut(f"{program} took no input for {_STANDSTILL:.0f} s")
        if status != 0:
            raise _failure(program, status, said.fileno())
        if broken:
            raise UpstreamFailed(f"{program} stopped reading before the image's end")


def run(argv: Sequence[str], deadline: float, accepted: tuple[int, ...] = (0,)) -> str:
    """Run a short command and return what it printed. Raises UpstreamFailed, TimedOut."""
    program = os.path.basename(argv[0])
    try:
        done = subprocess.run(  # argument list, absolute program
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=_ENVIRONMENT,
            timeout=deadline,
            check=False,
        )
    except OSError as error:
        raise _absent(argv[0], error) from error
    except subprocess.TimeoutExpired as error:
        raise TimedOut(f"{program} did not end within {deadline:.0f} s") from error
    text = done.stdout.decode("utf-8", "backslashreplace")
    if done.returncode not in accepted:
        raise UpstreamFailed(f"{program} failed with {_status(done.returncode)}: {_last_words(text)}")
    return text


def count_lines(argv: Sequence[str], deadline: float) -> int:
    """Run a command and count the lines that it prints, however many. Raises UpstreamFailed, TimedOut."""
    program = os.path.basename(argv[0])
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(
                list(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, env=_ENVIRONMENT, bufsize=0
            )
        except OSError as error:
            raise _absent(argv[0], error) from error
        end = time.monotonic() + deadline
        late = threading.Timer(deadline, process.kill)
        late.start()
        try:
            assert process.stdout
            with process.stdout as printed:
                lines = sum(piece.count(b"\n") for piece in iter(lambda: printed.read(_PIPE_SIZE), b""))
            status = process.wait()
        finally:
            late.cancel()
            _end(process)
        if status == -signal.SIGKILL and time.monotonic() >= end:
            raise TimedOut(f"{program} did not end within {deadline:.0f} s")
        if status != 0:
            raise _failure(program, status, said.fileno())
        return lines


def _start(argv: Sequence[str], said: int) -> subprocess.Popen[bytes]:
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=said,
            env=_ENVIRONMENT,
            umask=0o077,
            bufsize=0,
        )
    except OSError as error:
        raise _absent(argv[0], error) from error
    with contextlib.suppress(OSError):  # a user over the limit of pipe memory gets the usual size
        fcntl.fcntl(_input(process), fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
    return process


def _feed(process: subprocess.Popen[bytes], feed: Feed, wrote: Callable[[int], None]) -> bool:
    """Feed the whole stream. True when the program stopped reading: its exit status says why."""
    try:
        feed(_input(process), wrote)
    except BrokenPipeError:
        return True
    finally:
        assert process.stdin
        process.stdin.close()
    return False


def _input(process: subprocess.Popen[bytes]) -> int:
    assert process.stdin
    return process.stdin.fileno()


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
        process.wait()


def _absent(program: str, error: OSError) -> UpstreamFailed:
    return UpstreamFailed(f"{program} cannot be run: {(error.strerror or '').lower()}", "is the package installed?")


def _failure(program: str, status: int, said: int) -> UdiError:
    text = os.pread(said, 1 << 16, max(0, os.fstat(said).st_size - (1 << 16))).decode("utf-8", "backslashreplace")
    return UpstreamFailed(f"{program} failed with {_status(status)}: {_last_words(text)}")


def _status(status: int) -> str:
    return f"exit code {status}" if status >= 0 else f"signal {-status}"


def _last_words(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return printable("; ".join(lines[-2:]), 300) if lines else "it said nothing"


class _Watchdog:
    """Kills a process that takes nothing for too long, so that a write to its pipe cannot wait for ever."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.barked = False
        self._process = process
        self._moved = False
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self._thread.start()

    def pat(self) -> None:
        self._moved = True

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(_STANDSTILL):
            if not self._moved:
                self.barked = True
                self._process.kill()
                return
            self._moved = False
