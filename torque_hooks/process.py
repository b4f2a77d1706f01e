"""What a hook ensures about its own process: nothing of its caller's is trusted, and no signal goes unnoticed."""

from __future__ import annotations

import os
import signal
import types

from udi.command import ENVIRONMENT
from udiroot.errors import TimedOut

_CAUGHT = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGALRM)


class Interrupted(TimedOut):
    """The hook received a signal, or its backstop alarm, before its work was done."""


def clean_process() -> None:
    """Empty standard input, no inherited descriptors, the root directory, a plain environment and umask.

    Torque gives a prologue umask 077 and an epilogue 022 (torque-reference a); here it is 022 in both, and private
    files get modes of their own.
    """
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.closerange(3, 4096)
    os.chdir("/")
    os.umask(0o022)
    os.environ.clear()
    os.environ.update(ENVIRONMENT)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)


def catch_signals(seconds: int) -> None:
    """Turn SIGTERM, SIGHUP, SIGINT, and SIGALRM after `seconds`, into Interrupted.

    Only the first one counts: later ones are ignored, so that undoing is not undone. SIGKILL cannot be caught; `aprun`
    then finds no root, or the epilogue finds the state.
    """
    for number in _CAUGHT:
        signal.signal(number, _interrupt)
    signal.alarm(seconds)


def ignore_signals() -> None:
    """Whatever is done from here on is completed."""
    for number in _CAUGHT:
        signal.signal(number, signal.SIG_IGN)


def _interrupt(number: int, frame: types.FrameType | None) -> None:
    ignore_signals()
    raise Interrupted(f"interrupted by {signal.Signals(number).name} before it finished")
