"""What a message lists of names that strangers chose, of which there may be any number."""

from __future__ import annotations

from collections.abc import Sequence

from udiroot.errors import printable

_MAX_SHOWN = 20
_MAX_NAME = 100


def listed(names: Sequence[str]) -> str:
    """The first of the names, and how many more there are."""
    more = len(names) - _MAX_SHOWN
    shown = ", ".join(printable(name, _MAX_NAME) for name in names[:_MAX_SHOWN])
    return shown + (f", and {more} more" if more > 0 else "")
