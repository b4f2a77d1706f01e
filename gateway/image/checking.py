"""Checking layers against their diff_ids while they are processed, beside all else.

Layers whose headers can be read without their data are checked this way: those that are not compressed, and those that
are kept expanded. So the index pass and the packing need not wait for the sha256 of all bytes. The result must not be
used before `finish` returns.
"""

from __future__ import annotations

import contextlib
import hashlib
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import Self

from gateway.image import digesting
from gateway.image.companions import WORTH, companion
from gateway.image.digesting import Digest, DigestBeside
from gateway.image.layers import Layer, check_diff_id
from udiroot.errors import ImageInvalid, UdiError

_PIECE = 32 << 20
"""Bytes that are digested at a time; whether there is a use for more is looked at in between."""
_OF_NOTHING = hashlib.sha256().digest()
_FOR_THE_END = 3
"""One third of the bytes is left until all files are packed. Packing keeps all processors busy; what follows it,
directories and the digest of the image, uses one."""


class Checks:
    """Reads and digests layers, in the order in which they are added. A context manager: at its end, the thread has
    ended."""

    def __init__(self) -> None:
        self._steps: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._added = self._done = self._for_the_end = 0
        self._packed = threading.Event()
        self._failure: UdiError | MemoryError | None = None
        self._given_up = False
        self._here = Digest()
        self._beside: DigestBeside | None = None
        self._companion = contextlib.ExitStack()
        self._thread = threading.Thread(target=self._run, name="checks", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._given_up = True
        self._companion.close()
        self._end()

    def add(self, layer: Layer) -> None:
        """Check this layer, whose positions are positions in its file. Raises UpstreamFailed, OSError."""
        if layer.blob.size >= WORTH and not self._beside:
            self._beside = DigestBeside(self._companion.enter_context(companion(digesting.__name__, [])))
        self._added += layer.blob.size
        self._steps.put(partial(self._check, layer))

    def then(self, step: Callable[[], None]) -> None:
        """Have `step` done beside all else, once what was added is checked."""
        self._steps.put(step)

    def packing(self) -> None:
        """All layers were added, and files are being packed."""
        self._for_the_end = self._added // _FOR_THE_END

    def packed(self) -> None:
        """All files are packed."""
        self._packed.set()

    def look(self) -> None:
        """Raise ImageInvalid if a layer is known not to match the configuration."""
        if self._failure:
            raise self._failure

    def finish(self) -> None:
        """Wait for the last layer. Raises ImageInvalid."""
        self._end()
        self.look()

    def _end(self) -> None:
        self._packed.set()
        self._steps.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            while step := self._steps.get():
                step()
        except (UdiError, MemoryError) as error:
            self._failure = error
        except Exception as error:  # noqa: BLE001 - raised by `finish`, on the thread that waits
            self._failure = ImageInvalid(f"the layers cannot be read: {error}")

    def _check(self, layer: Layer) -> None:
        blob, position, found = layer.blob, 0, _OF_NOTHING
        digest = self._beside if self._beside and blob.size >= WORTH else self._here
        while position < blob.size and self._goes_on():
            size = min(_PIECE, blob.size - position)
            count, found = digest.add(blob.descriptor, blob.offset + position, size, is_first=not position)
            position += count
            self._done += count
            if count < size:
                raise ImageInvalid(f"{layer.label} ends after {position} of {blob.size} bytes")
        if not self._given_up:
            check_diff_id(layer, found.hex())

    def _goes_on(self) -> bool:
        """Whether there is a use for more, once it is time for that."""
        if self._added - self._done <= self._for_the_end:
            self._packed.wait()
        return not self._given_up
