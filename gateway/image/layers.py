"""Layers: their bytes in order, and whether they are the bytes that the image's id names.

A layer is read completely at least once: its uncompressed sha256 must be the configuration's diff_id. Whoever reads it
a second time may rely on that only where nobody else can write the file (the service keeps a copy of its own).
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from gateway.image.blob import Blob
from gateway.image.compression import compression_of, expanded
from udiroot.errors import ImageInvalid

_WINDOW = 1 << 13
"""Bytes that are read at a header, so that small files after it and the next headers are read as well."""


@dataclass
class Budget:
    """How many bytes all layers of one image may have together; counted down as they are read, by any thread."""

    bytes_left: int
    max_ratio: int
    max_bytes: int
    ratio_from: int
    """Bytes that any layer may expand to, however small it is compressed: a file of zeros is honest."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @classmethod
    def of(cls, max_bytes: int, max_ratio: int, ratio_from: int) -> Budget:
        return cls(max_bytes, max_ratio, max_bytes, ratio_from)

    def spend(self, count: int) -> None:
        """Raises ImageInvalid where so many bytes are not left; none are spent then."""
        with self._lock:
            fits = count <= self.bytes_left
            self.bytes_left -= count if fits else 0
        if not fits:
            hint = "limit set by gateway.max_image_bytes"
            raise ImageInvalid(f"the layers have more than {self.max_bytes} bytes", hint)

    def refund(self, count: int) -> None:
        """What will be read, and spent, again."""
        with self._lock:
            self.bytes_left += count


@dataclass(frozen=True)
class Layer:
    """One layer of an image. `number` counts from 1, for messages. Where it `is_expanded`, the blob is what the layer
    expands to, whatever its first bytes look like."""

    blob: Blob
    diff_id: str
    number: int
    is_expanded: bool = False

    @property
    def label(self) -> str:
        return f"layer {self.number}"

    def is_plain(self) -> bool:
        """Whether it is not compressed, so that positions in the stream are positions in the file."""
        return self.compression == "plain"

    @property
    def compression(self) -> str:
        """As `compression_of` names it."""
        return "plain" if self.is_expanded else compression_of(self.blob)


def check_diff_id(layer: Layer, found: str) -> None:
    """Raises ImageInvalid where the layer's sha256 is not the configuration's diff_id."""
    if f"sha256:{found}" != layer.diff_id:
        raise ImageInvalid(
            f"{layer.label} does not match the image configuration: {layer.diff_id} expected, sha256:{found} found"
        )


def chunks(layer: Layer, budget: Budget) -> Iterator[bytes]:
    """The layer's uncompressed bytes, in order and within the budget."""
    produced = 0
    for chunk in expanded(layer.blob, layer.label, layer.compression):
        produced += len(chunk)
        if produced > budget.ratio_from and produced > layer.blob.size * budget.max_ratio:
            raise ImageInvalid(
                f"{layer.label} expands to more than {budget.ratio_from} bytes and {budget.max_ratio} times its size",
                "limits set by gateway.ratio_from_bytes and gateway.max_ratio",
            )
        budget.spend(len(chunk))
        yield chunk


class Digester:
    """A sha256 computed during the reading, on a thread of its own: hashing and decompressing both release the GIL."""

    _BACKLOG = 8

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._failure: BaseException | None = None
        self._chunks: queue.Queue[bytes | None] = queue.Queue(self._BACKLOG)
        self._thread = threading.Thread(target=self._run, name="sha256", daemon=True)
        self._thread.start()

    def update(self, chunk: bytes) -> None:
        self._chunks.put(chunk)

    def finish(self) -> str:
        """The hex digest of all that was given. The thread ends."""
        self._chunks.put(None)
        self._thread.join()
        if self._failure:
            raise self._failure
        return self._digest.hexdigest()

    def _run(self) -> None:
        while (chunk := self._chunks.get()) is not None:
            try:
                self._digest.update(chunk)
            except Exception as error:  # noqa: BLE001 - raised by `finish`; until then, whoever gives more must not wait
                self._failure = error


class LayerStream:
    """The uncompressed bytes of one layer as a `ByteStream`; `watch` sees every chunk before the reader does."""

    def __init__(self, source: Iterator[bytes], label: str, watch: Callable[[bytes], None] | None = None) -> None:
        self._source = source
        self._label = label
        self._watch = watch
        self._chunk = memoryview(b"")
        self.position = 0

    def read(self, count: int) -> bytes:
        if count <= len(self._chunk):
            piece, self._chunk = self._chunk[:count], self._chunk[count:]
            self.position += count
            return bytes(piece)
        parts: list[bytes] = []
        while count and self._fill():
            piece, self._chunk = self._chunk[:count], self._chunk[count:]
            parts.append(bytes(piece))
            count -= len(piece)
            self.position += len(piece)
        return b"".join(parts)

    def pieces(self, count: int) -> Iterator[memoryview]:
        """The next `count` bytes, piece by piece. Raises ImageInvalid where the stream ends earlier."""
        while count:
            if not self._fill():
                raise ImageInvalid(f"{self._label} is cut off at byte {self.position}")
            piece, self._chunk = self._chunk[:count], self._chunk[count:]
            self.position += len(piece)
            count -= len(piece)
            yield piece

    def skip(self, count: int) -> None:
        _require_forward(count)
        for _ in self.pieces(count):
            pass

    def drain(self) -> None:
        """Read to the end: what follows an archive's end is still part of the layer's digest."""
        while self._fill():
            self.position += len(self._chunk)
            self._chunk = memoryview(b"")

    def _fill(self) -> bool:
        """Whether at least one byte is available."""
        while not self._chunk:
            chunk = next(self._source, None)
            if chunk is None:
                return False
            if self._watch:
                self._watch(chunk)
            self._chunk = memoryview(chunk)
        return True


class BlobStream:
    """A blob's bytes as a `ByteStream` that skips data by seeking, not by reading."""

    def __init__(self, blob: Blob, label: str) -> None:
        self._blob = blob
        self._label = label
        self._window = b""
        self._start = 0
        self.position = 0

    def read(self, count: int) -> bytes:
        at = self.position - self._start
        if not 0 <= at <= at + count <= len(self._window):
            if count > _WINDOW:
                return self._read_through(count)
            self._window, self._start, at = self._blob.read_at(self.position, _WINDOW), self.position, 0
        piece = self._window[at : at + count]
        self.position += len(piece)
        return piece

    def _read_through(self, count: int) -> bytes:
        parts: list[bytes] = []
        while count and (piece := self._blob.read_at(self.position, count)):
            parts.append(piece)
            self.position += len(piece)
            count -= len(piece)
        return b"".join(parts)

    def skip(self, count: int) -> None:
        _require_forward(count)
        self.position += count
        if self.position > self._blob.size:
            raise ImageInvalid(f"{self._label} is cut off: it ends at byte {self._blob.size}, not at {self.position}")


def _require_forward(count: int) -> None:
    """A stream is read once from its start: whatever a header claims, nothing is read again."""
    if count < 0:
        raise ImageInvalid(f"a header claims a size of {count} bytes")
