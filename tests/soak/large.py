"""An image that is large enough for companions of its conversion (`gateway.image.companions`)."""

from __future__ import annotations

import functools

from gateway.image.companions import WORTH
from tests.gateway.archives import Entry, file
from tests.system import images

HOW = "gzip"
"""How its layers are compressed, as a registry's are."""


def large(marker: str) -> list[list[Entry]]:
    """Its layers: those of a small one, whose `/etc/marker` says `marker`, and one of numbers."""
    return [*images.tiny(marker), [file("usr/numbers", _numbers())]]


@functools.cache
def _numbers() -> bytes:
    return b"".join(b"%08d\n" % number for number in range(WORTH // 9 + (1 << 16)))
