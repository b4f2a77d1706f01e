"""A signal to this process when its parent dies, for one that has been forked anyway."""

from __future__ import annotations

import ctypes
import signal

_prctl = ctypes.CDLL(None, use_errno=True).prctl  # looked up here, since a forked child of a thread should not
_PR_SET_PDEATHSIG = 1


def die_with_caller(number: int = signal.SIGKILL) -> None:
    """In the child: a hook that is killed must not leave, say, a fan-out behind that continues to set up nodes. The
    signal `number` comes when the thread that started this process ends."""
    _prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
