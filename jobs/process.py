"""What a hook ensures about its own process: nothing of its caller's is trusted, and no signal goes unnoticed."""

from __future__ import annotations

import os
import signal
import sys
import types

from udi.command import ENVIRONMENT
from udi.undivided import is_postponed

_REQUESTS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
"""By which others ask a hook to end."""
_AGAIN_SECONDS = 35
"""How long after an interruption the alarm rings again: what was begun may be undone in that time."""
_caller = 0
"""The process that this one must not outlive, where there is one."""


class Interrupted(BaseException):
    """The hook received a signal, or its backstop alarm, before its work was done.

    Not an Exception: what handles errors on the way, as `logging` does with all that its handlers raise, must not
    take it for one.
    """


class Orphaned(Interrupted):
    """The process that pbs_mom knows as the hook was killed: whatever this one decides, nobody hears it."""


def clean_process() -> None:
    """Empty standard input, no inherited descriptors, the root directory, a plain environment and umask.

    Torque gives a prologue umask 077 and an epilogue 022 (torque-reference a); here it is 022 in both, and private
    files get modes of their own. Where stdout or stderr is closed it becomes /dev/null, so that no file of ours gets
    its number.
    """
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    for standard in (1, 2):
        try:
            os.fstat(standard)
        except OSError:
            os.dup2(null, standard)
    os.closerange(3, 4096)
    os.chdir("/")
    os.umask(0o022)
    os.environ.clear()
    os.environ.update(ENVIRONMENT)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)


def catch_signals(seconds: int = 0) -> None:
    """Turn SIGTERM, SIGHUP, SIGINT, and SIGALRM after `seconds` where some are given, into Interrupted.

    Only the first one of the others counts, so that undoing is not undone; the alarm rings again and again, should
    something have swallowed an interruption, or should undoing hang. SIGKILL cannot be caught; `aprun` then finds no
    root, or the epilogue finds the state.
    """
    for number in (*_REQUESTS, signal.SIGALRM):
        signal.signal(number, _interrupt)
    signal.alarm(seconds)


def catch_alarm(seconds: int) -> None:
    """Turn SIGALRM after `seconds` into Interrupted, and let no other request end this process: for what must be done,
    and is nobody else's to do. The commands that it runs get the requests as usual."""
    for number in _REQUESTS:
        signal.signal(number, _pass_over)
    signal.signal(signal.SIGALRM, _interrupt)
    signal.alarm(seconds)


def end_with(caller: int) -> None:
    """After `catch_signals`: get SIGTERM when the process `caller`, which started this one, ends; it may have ended.

    The installed wrapper is what pbs_mom knows of a prologue. Where that is killed, Torque starts the job, and may run
    the epilogue before this process has made anything that the epilogue could find. Raises Orphaned.
    """
    global _caller
    _caller = caller
    from udi.parentdeath import die_with_caller  # an epilogue has no such caller

    die_with_caller(signal.SIGTERM)
    if os.getppid() != caller:
        os.kill(os.getpid(), signal.SIGTERM)


def ignore_signals() -> None:
    """Whatever is done from here on is completed. A signal that comes meanwhile is held, and ends a `pause`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _REQUESTS)
    signal.alarm(0)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)


def pause(seconds: float) -> None:
    """Wait, after `ignore_signals`; a signal ends it: a hook that does not end is killed, which counts as a success."""
    if seconds > 0:
        signal.sigtimedwait(_REQUESTS, seconds)


def _pass_over(number: int, frame: types.FrameType | None) -> None:
    """Unlike SIG_IGN, a handler is not passed on to commands."""


def _interrupt(number: int, frame: types.FrameType | None) -> None:
    if is_postponed(number):
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, _REQUESTS)
    signal.alarm(_AGAIN_SECONDS)
    sys.unraisablehook = _told_again
    if _caller and os.getppid() != _caller:
        raise Orphaned("the process that pbs_mom started was killed")
    raise Interrupted(f"interrupted by {signal.Signals(number).name} before it finished")


def _told_again(lost: sys.UnraisableHookArgs) -> None:
    """Where a signal comes in a callback of Python's own, such as logging's after a fork, Python drops what is raised
    there with a traceback for the user. The alarm raises it again."""
    if not isinstance(lost.exc_value, Interrupted):
        sys.__unraisablehook__(lost)
