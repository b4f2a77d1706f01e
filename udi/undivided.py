"""Steps of the main thread that no interruption divides.

What the handler of a signal raises can come between any two operations. Between the start of a process and the moment
when its number is known, the process would be nobody's: it would run on beside whatever undoes its work. Blocking the
signals is no way out, since the process would inherit that. So every handler that raises asks `is_postponed` first.
Python's own handler of ^C does not, and has another in its place for as long as a step takes: what is there before and
after is the program's, which may ask for it, as asyncio does.
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
    is_default = signal.getsignal(signal.SIGINT) in (signal.default_int_handler, _interrupt)
    if is_default:
        signal.signal(signal.SIGINT, _interrupt)
    _waiting.clear()  # of those of another step, one was raised
    _is_within = True
    try:
        yield
    finally:
        _is_within = False  # before the other handler, which would raise while it is still set
        if is_default:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in tuple(_waiting):
            signal.raise_signal(number)


def is_postponed(number: int) -> bool:
    """Asked by a handler: whether it is to do nothing, since the signal will be raised again."""
    if _is_within:
        _waiting.add(number)
    return _is_within


def _interrupt(number: int, frame: types.FrameType | None) -> None:
    """As Python's own handler of ^C, but it asks. One that raises between two steps may stay until the next."""
    if not is_postponed(number):
        raise KeyboardInterrupt
