"""Checking layers against their diff_ids while they are processed, on a thread of its own.

Only layers that are not compressed are checked this way: their headers can be read without their data, so the index
pass and the packing need not wait for the sha256 of all bytes. The result must not be used before `finish` returns.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Sequence
from typing import Self

from gateway.image.layers import Layer, check_diff_id
from udiroot.errors import ImageInvalid, UdiError

_PIECE = 16 << 20
"""Large, since this thread takes the interpreter lock between two pieces, and the others then wait for it."""


class Checks:
    """Reads and digests layers from the first to the last. A context manager: at its end, the thread has ended."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._layers = [layer for layer in layers if layer.is_plain()]
        self._failure: UdiError | MemoryError | None = None
        self._given_up = False
        self._thread = threading.Thread(target=self._run, name="checks", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._given_up = True
        self._thread.join()

    def look(self) -> None:
        """Raise ImageInvalid if a layer is known not to match the configuration."""
        if self._failure:
            raise self._failure

    def finish(self) -> None:
        """Wait for the last layer. Raises ImageInvalid."""
        self._thread.join()
        self.look()

    def _run(self) -> None:
        try:
            for layer in self._layers:
                self._check(layer)
        except (UdiError, MemoryError) as error:
            self._failure = error
        except Exception as error:  # noqa: BLE001 - raised by `finish`, on the thread that waits
            self._failure = ImageInvalid(f"the layers cannot be read: {error}")

    def _check(self, layer: Layer) -> None:
        digest, blob = hashlib.sha256(), layer.blob
        buffer = bytearray(_PIECE)
        view = memoryview(buffer)
        position = 0
        while position < blob.size and not self._given_up:
            count = os.preadv(blob.descriptor, [view[: blob.size - position]], blob.offset + position)
            if not count:
                raise ImageInvalid(f"{layer.label} ends after {position} of {blob.size} bytes")
            digest.update(view[:count])
            position += count
        if not self._given_up:
            check_diff_id(layer, digest.hexdigest())
