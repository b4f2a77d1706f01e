"""What work costs as its input grows: a ratio of processor times, never a number of seconds.

Seconds say how fast and how busy the machine is. Where steps can be counted (calls, reads, lines), they are the better
measure; this one is for work inside the interpreter's own C code, such as a regular expression.
"""

from __future__ import annotations

import time
from collections.abc import Callable

_TIMES = 8
"""How much larger the larger input is."""
_ROOM = 3.0
"""Linear work may seem so many times worse; quadratic work is 8 times worse."""
_LEAST = 0.01
"""Processor seconds: less than that is too short to be compared."""


def assert_linear(work: Callable[[int], object], size: int) -> None:
    """Fail where the work for an input of `size` costs more than linearly more than that for an eighth of it.

    An input that costs next to nothing passes. `work` is called three times for each size, and the fastest counts.
    """
    small, large = (min(_seconds(work, each) for _ in range(3)) for each in (size // _TIMES, size))
    assert large <= _ROOM * _TIMES * max(small, _LEAST), f"{small:.3f} s, {large:.3f} s of processor time"


def _seconds(work: Callable[[int], object], size: int) -> float:
    begun = time.process_time()
    work(size)
    return time.process_time() - begun
