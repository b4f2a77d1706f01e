"""Programs of the host that run to completion and whose output is collected: the one place that calls `sh`.

Arguments are any bytes that a file name may have, no terminal is involved, and a failure is one line. A program that a
caller holds on to, that needs descriptors or a namespace, or that is being timed is started by `subprocess` instead.
"""

import contextlib
import os
import signal
import threading
from pathlib import Path

import sh

from udiroot.errors import SetupFailed, UdiError


def run(
    program: str,
    *arguments: str | Path,
    failure: str,
    seconds: float = 60.0,
    error: type[UdiError] = SetupFailed,
    hint: str = "",
    input: str = "",
) -> str:
    """Run a program and return what it wrote to stdout. It gets `input` on stdin and at most `seconds` seconds.

    A program that does not exist raises SetupFailed; one that fails raises `error` with the message `failure`, the last
    line that it wrote, and `hint`. On a timeout or an interrupt, all of its process group is killed.
    """
    try:
        command = sh.Command(program)
    except sh.CommandNotFound as missing:
        raise SetupFailed(f"{program} is missing", "make setup installs it") from missing
    words = [os.fsencode(argument).decode("latin-1") for argument in arguments]
    process = command(
        *words, _in=os.fsencode(input), _encoding="latin-1", _tty_out=False, _new_session=True, _bg=True, _bg_exc=False
    )
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        _kill(process.pgid)

    timer = threading.Timer(seconds, expire)
    timer.start()
    try:
        process.wait()
    except sh.ErrorReturnCode as failed:
        reason = f"{program} did not finish in {seconds:g} seconds" if expired.is_set() else _reason(program, failed)
        raise error(f"{failure}: {reason}", hint) from None
    except BaseException:
        _kill(process.pgid)
        raise
    finally:
        timer.cancel()
    return _text(process.process.stdout)


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _reason(program: str, failed: "sh.ErrorReturnCode") -> str:
    """The last line that a failed program wrote, to stderr if anything."""
    lines = (_text(failed.stderr).strip() or _text(failed.stdout).strip()).splitlines()
    if lines:
        return lines[-1]
    if failed.exit_code < 0:
        return f"{program} was terminated by signal {-failed.exit_code}"
    return f"{program} exited with status {failed.exit_code}"


def _text(output: bytes) -> str:
    return os.fsdecode(output)
