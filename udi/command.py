"""Running an external program: an argument list, a clean environment, a deadline, and bounded output.

The one place where hooks, node software and conversions start the commands of Cray, Torque and the site. There is never
a shell in between. Each command leads a session of its own; when its time is over, all of its process group is killed,
and every byte that it had printed is still available. It is killed, too, when this process ends (`udi.tether`), and
when a signal interrupts this process while it starts the command (`udi.undivided`).

Hooks use this runner rather than the `sh` library: importing `sh` takes about 100 ms, a call of it 7 to 16 ms, and its
timeout ends the first process only. `sh` is used where its manners fit and nobody waits for milliseconds: the transfers
of the gateway's service, xcsim, benchmarks.
"""

from __future__ import annotations

import contextlib
import enum
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Self

from udi.oserrors import reason
from udi.tether import Tether
from udi.undivided import undivided
from udi.values import Frozen
from udiroot.errors import TimedOut, UpstreamFailed, printable

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C", "LC_ALL": "C"}
"""What a command gets, whoever called us."""

_MAX_OUTPUT = 64 << 20
"""Bytes of output that are kept: a machine-wide inventory has some tens of megabytes."""
_MAX_LINE = 1 << 16
_POLL = 0.02
"""Seconds between two looks at a process, on kernels that cannot report its exit (before Linux 5.3)."""
_PRIVATE = 0o077


class Finished(Frozen):
    """A command that exited by itself."""

    program: str
    exit_code: int
    stdout: bytes
    stderr: bytes

    def require_success(self) -> Finished:
        """Itself; raises UpstreamFailed, with the last line that the command printed, where its status is not 0."""
        if self.exit_code:
            raise UpstreamFailed(f"{self.program} exited with {self.exit_code}{_last_line(self.stdout, self.stderr)}")
        return self


class Deadline:
    """A moment after which nothing is waited for any more. Callers pass on what is left of their own."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self, at_most: float | None = None) -> float:
        """Seconds left, never below 0, and never more than `at_most`."""
        left = max(0.0, self._end - time.monotonic())
        return left if at_most is None else min(left, at_most)

    def restart(self) -> None:
        """Begin again with all of the seconds."""
        self._end = time.monotonic() + self._seconds

    @property
    def passed(self) -> bool:
        return self.left() <= 0


class Late(TimedOut):
    """A command that did not finish in time; `partial` is what it had printed."""

    def __init__(self, message: str, partial: bytes) -> None:
        super().__init__(message)
        self.partial = partial


Feed = Callable[[int, Callable[[int], None]], None]
"""Writes all input of a command to a descriptor, and calls back with the number of bytes after each write."""


def run(
    argv: Sequence[str],
    *,
    seconds: float,
    stdin: bytes = b"",
    on_line: Callable[[str], bool] | None = None,
    on_stdout: Callable[[bytes], None] | None = None,
    merge: bool = False,
    environment: Mapping[str, str] | None = None,
) -> Finished:
    """Run `argv`, whose first word is an absolute path, for at most `seconds`, with `environment` added to its own.

    With `merge`, stderr is part of stdout. `on_line`, which implies that, is called for each line as it arrives; when
    it returns True, enough was seen, and the command is killed and counts as a success; of the output only its last
    64 KiB are kept then. `on_stdout` gets all of stdout in pieces, which are not kept. Raises UpstreamFailed when the
    program cannot be run or was terminated by a signal, Late when the time was over.
    """
    program = argv[0]
    if seconds <= 0:
        raise Late(f"no time left to run {program}", b"")
    with _Command(argv, environment, piped=bool(stdin), merge=merge or on_line is not None) as command:
        output = _Output(on_line, on_stdout)
        verdict = command.wait(output, Deadline(seconds), stdin)
    if verdict is Verdict.LATE:
        raise Late(f"{program} did not finish within {seconds:.0f} s", output.stdout)
    return Finished(program, 0, *output.kept) if verdict is Verdict.ENOUGH else command.finished(output)


def run_fed(
    argv: Sequence[str],
    feed: Feed,
    *,
    standstill: float,
    pipe_size: int = 0,
    environment: Mapping[str, str] | None = None,
) -> Finished:
    """Run `argv` with all that `feed`, in a thread of its own, writes to the command's input.

    Its time is not limited, but it must not go `standstill` seconds without taking input or, after the last input,
    without exiting. The files that it makes are private to the caller's account. `pipe_size` is the wanted size of the
    pipe between the two. Raises UpstreamFailed when the program cannot be run, was terminated by a signal, or succeeded
    without reading all of its input; Late at a standstill; and whatever `feed` raises.
    """
    program = argv[0]
    limit = Deadline(standstill)
    output = _Output()
    with _Command(argv, environment, piped=True, umask=_PRIVATE) as command, _Feeder(feed, command, limit) as feeder:
        if pipe_size:
            command.set_pipe_size(pipe_size)
        feeder.start()
        verdict = command.wait(output, limit, until=feeder.done)
        if verdict is Verdict.FED and feeder.error is None:
            limit.restart()
            command.close_input()
            verdict = command.wait(output, limit)
    if feeder.error:
        raise feeder.error
    if verdict is Verdict.LATE:
        what = "took no input" if feeder.interrupted else "did not finish after its last input"
        raise Late(f"{program} {what} for {standstill:.0f} s", output.stdout)
    done = command.finished(output)
    if feeder.interrupted and not done.exit_code:
        raise UpstreamFailed(f"{program} stopped reading before the end of its input")
    return done


class Verdict(enum.Enum):
    """Why a command is not waited for any more."""

    EXITED = "exited"
    ENOUGH = "enough was seen"
    FED = "all input was written"
    LATE = "late"


class _Output:
    """What a command prints: kept up to a limit, or passed on."""

    def __init__(
        self, on_line: Callable[[str], bool] | None = None, on_stdout: Callable[[bytes], None] | None = None
    ) -> None:
        self._on_line = on_line
        self._on_stdout = on_stdout
        self._stdout = bytearray()
        self._stderr = bytearray()
        self._unfinished = b""

    @property
    def stdout(self) -> bytes:
        return bytes(self._stdout)

    @property
    def kept(self) -> tuple[bytes, bytes]:
        """Both streams."""
        return bytes(self._stdout), bytes(self._stderr)

    def add(self, chunk: bytes, *, stderr: bool) -> bool:
        """Take what came; nothing at the end of the stream. False once `on_line` has seen enough."""
        kept = self._stderr if stderr else self._stdout
        if self._on_stdout and not stderr:
            self._on_stdout(chunk)
        elif self._on_line:
            kept += chunk
            del kept[:-_MAX_LINE]
        else:
            kept += chunk[: _MAX_OUTPUT - len(kept)]
        if self._on_line is None:
            return True
        *lines, self._unfinished = (self._unfinished + chunk).split(b"\n")
        if not chunk and self._unfinished:
            lines, self._unfinished = [self._unfinished], b""
        self._unfinished = self._unfinished[-_MAX_LINE:]
        return not any(self._on_line(line.decode("utf-8", "replace")) for line in lines)


class _Command:
    """A started command. A context manager: at its end, nothing of its session is left."""

    def __init__(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str] | None,
        *,
        piped: bool,
        merge: bool = False,
        umask: int = -1,
    ) -> None:
        self._program = argv[0]
        try:
            with contextlib.ExitStack() as undo:
                self._tether = undo.enter_context(contextlib.closing(Tether()))
                with undivided():
                    self._process = subprocess.Popen(
                        argv,
                        stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
                        stdout=subprocess.PIPE,
                        stderr=subprocess.STDOUT if merge else subprocess.PIPE,
                        env={**ENVIRONMENT, **(environment or {})},
                        cwd="/",
                        bufsize=0,
                        start_new_session=True,
                        umask=umask,
                    )
                    self._tether.tie(self._process.pid)
                undo.pop_all()
        except OSError as error:
            raise UpstreamFailed(
                f"cannot run {self._program}: {reason(error)}", "check its path in the site's configuration"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._process.wait()
        self._tether.close()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream:
                stream.close()

    @property
    def input(self) -> int:
        """The descriptor that its input is written to."""
        assert self._process.stdin
        return self._process.stdin.fileno()

    def set_pipe_size(self, size: int) -> None:
        """A user above the limit of pipe memory gets the usual size."""
        import fcntl

        with contextlib.suppress(OSError):
            fcntl.fcntl(self.input, fcntl.F_SETPIPE_SZ, size)

    def close_input(self) -> None:
        """Its input ends here."""
        assert self._process.stdin
        self._process.stdin.close()

    def kill(self) -> None:
        """Kill all of its process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def finished(self, output: _Output) -> Finished:
        """How it exited. Raises UpstreamFailed where a signal terminated it."""
        code = self._process.returncode
        if code < 0:
            raise UpstreamFailed(f"{self._program} was terminated by signal {-code}{_last_line(*output.kept)}")
        return Finished(self._program, code, *output.kept)

    def wait(self, output: _Output, limit: Deadline, stdin: bytes = b"", until: int | None = None) -> Verdict:
        """Read what it prints until it exits, enough was seen, the limit has passed, or `until` becomes readable.

        A child that keeps the pipes open is not waited for once the command has exited.
        """
        with contextlib.ExitStack() as stack:
            ready = stack.enter_context(selectors.DefaultSelector())
            for stream in (self._process.stdout, self._process.stderr):
                if stream:
                    os.set_blocking(stream.fileno(), False)
                    ready.register(stream, selectors.EVENT_READ, stream)
            writing = -1
            if stdin:
                writing = self.input
                os.set_blocking(writing, False)
                ready.register(writing, selectors.EVENT_WRITE)
            if until is not None:
                ready.register(until, selectors.EVENT_READ)
            pause = _POLL
            with contextlib.suppress(OSError, AttributeError):  # before Linux 5.3, or Python built for such a kernel
                exit_event = os.pidfd_open(self._process.pid)
                stack.callback(os.close, exit_event)
                ready.register(exit_event, selectors.EVENT_READ)
                pause = float("inf")
            pending = memoryview(stdin)
            while left := limit.left():
                exited = self._process.poll() is not None
                printed = False
                for key, _ in ready.select(0 if exited else min(left, pause)):
                    if key.fd == until:
                        return Verdict.FED
                    if key.data:
                        printed = True
                        if not self._read(key.data, output, ready):
                            return Verdict.ENOUGH
                    elif key.fd == writing:
                        pending = self._write(pending, ready)
                if exited and not printed:
                    return Verdict.EXITED
            return Verdict.LATE

    def _write(self, pending: memoryview, ready: selectors.BaseSelector) -> memoryview:
        try:
            pending = pending[os.write(self.input, pending[:65536]) :]
        except BrokenPipeError:
            pending = pending[len(pending) :]
        if not pending:
            ready.unregister(self.input)
            self.close_input()
        return pending

    def _read(self, stream: IO[bytes], output: _Output, ready: selectors.BaseSelector) -> bool:
        chunk = os.read(stream.fileno(), 1 << 18)
        if not chunk:
            ready.unregister(stream)
        return output.add(chunk, stderr=stream is self._process.stderr)


class _Feeder:
    """Writes the input of a command, in a thread. A context manager: at its end, the thread has ended."""

    def __init__(self, feed: Feed, command: _Command, limit: Deadline) -> None:
        self._feed = feed
        self._command = command
        self._limit = limit
        self._thread = threading.Thread(target=self._run, name="feeder", daemon=True)
        self.error: BaseException | None = None
        self.interrupted = True
        """Whether the command took less than all of its input."""
        self.done, self._report = os.pipe2(os.O_CLOEXEC)
        """Becomes readable once all input was written, or writing it has failed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._command.kill()  # whatever it still writes fails now
        if self._thread.ident:
            self._thread.join()
        os.close(self.done)
        os.close(self._report)

    def start(self) -> None:
        """Begin writing."""
        self._thread.start()

    def _run(self) -> None:
        try:
            self._feed(self._command.input, lambda count: self._limit.restart())
            self.interrupted = False
        except BrokenPipeError:
            pass  # its exit status tells why
        except BaseException as error:  # noqa: BLE001 - raised by `run_fed`, on the thread that waits
            self.error = error
        finally:
            os.write(self._report, b"x")


def _last_line(stdout: bytes, stderr: bytes) -> str:
    """The command's own explanation, to be added to a message."""
    lines = (stderr.strip() or stdout.strip()).decode("utf-8", "backslashreplace").splitlines()
    return f": {printable(lines[-1])}" if lines else ""
