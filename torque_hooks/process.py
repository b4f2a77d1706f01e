"""What a hook makes sure of about its own process: nothing of its caller's is trusted, and every end is noticed."""

from __future__ import annotations

import os
import signal
import types

from udi.command import ENVIRONMENT
from udiroot.errors import TimedOut

_CAUGHT = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGALRM)


class Interrupted(TimedOut):
    """The hook was told to end, or its backstop rang, before its work was done."""


def clean_process() -> None:
    """Standard input closed, no inherited descriptors, the root folder, a plain environment and umask.

    Torque gives a prologue umask 077 and an epilogue 022 (torque-reference a); ours is 022 in both, and files of ours
    that are private have modes of their own.
    """
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.closerange(3, 4096)
    os.chdir("/")
    os.umask(0o022)
    os.environ.clear()
    os.environ.update(ENVIRONMENT)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)


def notice_ends(seconds: int) -> None:
    """Turn SIGTERM, SIGHUP, SIGINT, and SIGALRM after `seconds`, into Interrupted.

    The first one counts: later ones are ignored, so that undoing is not undone. SIGKILL cannot be caught; `aprun` then
    finds no root, or the epilogue finds the state.
    """
    for number in _CAUGHT:
        signal.signal(number, _interrupt)
    signal.alarm(seconds)


def ignore_ends() -> None:
    """What is done from here on is done to its end."""
    for number in _CAUGHT:
        signal.signal(number, signal.SIG_IGN)


def _interrupt(number: int, frame: types.FrameType | None) -> None:
    ignore_ends()
    raise Interrupted(f"ended by {signal.Signals(number).name} before it was done")
