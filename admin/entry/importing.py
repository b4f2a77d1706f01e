"""How hooks import: Python looks for no garbage meanwhile, since modules stay until a hook ends."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """What is made here is not looked at by the collector, neither now nor when it looks for garbage later."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
