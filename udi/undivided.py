"""Steps of the main thread that no interruption divides.

What the handler of a signal raises can come between any two operations. Between the start of a process and the moment
when its number is known, the process would be nobody's: it would run on beside whatever undoes its work. Blocking the
signals is no way out, since the process would inherit that. So every handler that raises asks `is_postponed` first.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import types
from collections.abc import Iterator

_waiting: set[int] = set()
_is_within = False


@contextlib.contextmanager
def undivided() -> Iterator[None]:
    """A signal that comes within is handled at the end. In other threads than the main one, none is ever handled."""
    global _is_within
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    _waiting.clear()  # of those of another step, one was raised
    _is_within = True
    try:
        yield
    finally:
        _is_within = False
        for number in tuple(_waiting):
            signal.raise_signal(number)


def is_postponed(number: int) -> bool:
    """Asked by a handler: whether it is to do nothing, since the signal will be raised again."""
    if _is_within:
        _waiting.add(number)
    return _is_within


def _interrupt(number: int, frame: types.FrameType | None) -> None:
    """As Python's own handler of ^C, but it asks."""
    if not is_postponed(number):
        raise KeyboardInterrupt
