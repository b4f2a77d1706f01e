"""Reports of progress, no more often than those who wait want them."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pace:
    """Calls `report` at once, and after that when `seconds` have passed since it was last called."""

    def __init__(self, seconds: float, report: Callable[[], None]) -> None:
        self._seconds = seconds
        self._report = report
        self._last = -seconds

    def __call__(self) -> None:
        """Report, where it is time for it."""
        if time.monotonic() - self._last > self._seconds:
            self.now()

    def now(self) -> None:
        """Report, whenever the last time was."""
        self._last = time.monotonic()
        self._report()
