"""The kernel's alarm ends a step that hangs in a call; `signal` would cost `enum` and all that it imports."""

from udiroot.errors import TimedOut


def set_alarm(seconds: int) -> None:
    """Raise TimedOut here in `seconds`, which replace those of an earlier alarm."""
    import _signal  # type: ignore[import-not-found, unused-ignore]

    def late(number: int, frame: object) -> None:
        raise TimedOut(f"not finished within {seconds} seconds")

    _signal.signal(_signal.SIGALRM, late)
    _signal.alarm(seconds)
