"""Trying a request again: after a lost connection, and when a registry is busy, after the wait that it asks for.

for attempt in patience.attempts():
    with attempt:
        return request()
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from types import TracebackType

from udi.command import Deadline
from udiroot.errors import UdiError, UpstreamFailed

BUSY = (408, 425, 429, 500, 502, 503, 504)
"""Statuses that another attempt may not meet."""
_ATTEMPTS = 4
_PAUSE = 0.3
"""Seconds before the second attempt, and twice, three times as many before the next ones, where no wait was asked for.
"""


class Passing(UpstreamFailed):
    """A failure that another attempt may not meet. `wait` is how many seconds the server asked to wait, or None."""

    def __init__(self, message: str, hint: str = "", wait: float | None = None) -> None:
        super().__init__(message, hint)
        self.wait = wait


def is_passing(failure: BaseException | None) -> bool:
    """Whether another attempt may help, as far as the failure itself shows."""
    return isinstance(failure, Passing)


def _sleep(seconds: float, failure: UdiError) -> None:
    time.sleep(seconds)


@dataclass(frozen=True)
class Patience:
    """How long requests are tried again: never past `deadline`, and with no pause of more than `longest` seconds.

    `sleep` waits, and is informed of what for; it may raise what ends all attempts. `passes` decides which failures
    another attempt may not meet.
    """

    deadline: Deadline
    longest: float = float("inf")
    sleep: Callable[[float, UdiError], None] = _sleep
    passes: Callable[[BaseException | None], bool] = is_passing

    def attempts(self) -> Iterator[Attempt]:
        """Attempts at one request: each is a context that suppresses a failure which may pass, but for the last one."""
        for number in range(1, _ATTEMPTS):
            attempt = Attempt(self, number)
            yield attempt
            if attempt.succeeded:
                return
        yield Attempt(None, _ATTEMPTS)

    def pause(self, failure: UdiError, number: int) -> bool:
        """Wait before attempt `number` + 1; False where there is no time for one."""
        asked = failure.wait if isinstance(failure, Passing) else None
        wait = _PAUSE * number if asked is None else asked
        if wait > self.longest or wait >= self.deadline.left():
            if asked is not None and asked > 1:
                failure.hint = f"it asks to try again in {asked:.0f} s"
            return False
        self.sleep(wait, failure)
        return True


class Attempt:
    """One of several attempts."""

    def __init__(self, patience: Patience | None, number: int) -> None:
        self._patience = patience
        self._number = number
        self.succeeded = False

    def __enter__(self) -> None:
        self.succeeded = False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if self._patience and isinstance(error, UdiError) and self._patience.passes(error):
            return self._patience.pause(error, self._number)
        self.succeeded = error is None
        return False


def retry_after(value: str, date: str = "") -> float | None:
    """The seconds that a `Retry-After` header (RFC 9110, 10.2.3) asks for; None for what is not one.

    A moment is taken relative to `date`, the answer's own, so that clocks need not agree.
    """
    text = value.strip()
    if text.isascii() and text.isdecimal():
        return float(text[:9])
    moment, now = _moment(text), _moment(date)
    if moment is None:
        return None
    return max(0.0, moment - (time.time() if now is None else now))


def _moment(text: str) -> float | None:
    """An HTTP date (RFC 9110, 5.6.7) in any of its three forms, all of which are in UTC."""
    try:
        found = parsedate_to_datetime(text)
        return found.replace(tzinfo=found.tzinfo or UTC).timestamp()
    except (ValueError, OverflowError):
        return None
