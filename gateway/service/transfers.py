"""Running rsync and ssh for transfers to replica systems, through the `sh` library.

The deadline is our own: that of `sh` kills the first process only, where rsync has started an ssh. When a command
exits, or its time is over, its whole session is killed, so that the output ends and nothing is left behind.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from udi.command import ENVIRONMENT, Finished, Late
from udi.parentdeath import die_with_caller
from udiroot.errors import UpstreamFailed

if TYPE_CHECKING:
    from sh import RunningCommand

_MAX_OUTPUT = 64 << 20
_CHUNK = 1 << 16


def run_remote(argv: Sequence[str], seconds: float) -> Finished:
    """Run `argv`, whose first word is an absolute path, for at most `seconds`.

    Raises UpstreamFailed when the program cannot be run or was terminated by a signal, Late when the time was over.
    """
    import sh  # most requests transfer nothing, and need not wait for it

    logging.getLogger("sh").setLevel(logging.WARNING)
    program = argv[0]
    if seconds <= 0:
        raise Late(f"no time left to run {program}", b"")
    stdout, stderr = _Output(), _Output()
    try:
        with open(os.devnull, "rb") as null:
            command: RunningCommand = sh.Command(program)(
                *argv[1:],
                _bg=True,
                _bg_exc=False,
                _new_session=True,
                _in=null,
                _out=stdout,
                _err=stderr,
                _out_bufsize=_CHUNK,
                _err_bufsize=_CHUNK,
                _tty_out=False,
                _env=ENVIRONMENT,
                _cwd="/",
                _preexec_fn=die_with_caller,
                _encoding="utf-8",
            )
    except (sh.CommandNotFound, sh.ForkException, OSError) as error:
        raise UpstreamFailed(f"cannot run {program}", "check its path in the site's configuration") from error
    late = _wait(command, seconds)
    with contextlib.suppress(sh.ErrorReturnCode):
        command.wait()
    if late:
        raise Late(f"{program} did not finish within {seconds:.0f} s", stdout.getvalue())
    if command.exit_code < 0:
        raise UpstreamFailed(f"{program} was terminated by signal {-command.exit_code}")
    return Finished(program, command.exit_code, stdout.getvalue(), stderr.getvalue())


def _wait(command: RunningCommand, seconds: float) -> bool:
    """Wait for the first process, and leave none of its session. Returns whether the time was over before."""
    over = threading.Event()

    def expire() -> None:
        over.set()
        _kill_session(command.pid)

    timer = threading.Timer(seconds, expire)
    timer.start()
    try:
        with contextlib.suppress(ChildProcessError):  # a thread of sh has collected its status already
            os.waitid(os.P_PID, command.pid, os.WEXITED | os.WNOWAIT)
    finally:
        timer.cancel()
        _kill_session(command.pid)
    return over.is_set()


def _kill_session(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


class _Output(io.BytesIO):
    """What a command prints, up to a limit."""

    def write(self, chunk: bytes, /) -> int:  # type: ignore[override] # sh writes bytes only
        return super().write(chunk[: _MAX_OUTPUT - self.tell()])
