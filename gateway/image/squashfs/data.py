"""The data pass: the contents of all files, in the order in which their layers have them, to blocks and fragments.

A file that is smaller than a block is a fragment. A larger one has blocks of its own, its last one too, so that reading
it does not decompress the contents of others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from functools import partial

from gateway.image import accounts
from gateway.image.flatten import Flattened, account_files
from gateway.image.layers import Layer
from gateway.image.squashfs.contents import Contents
from gateway.image.squashfs.duplicates import LargeFiles, SharedSizes, SmallFiles
from gateway.image.squashfs.fragments import Fragments
from gateway.image.squashfs.holes import runs_of
from gateway.image.squashfs.output import Output
from gateway.image.squashfs.pieces import Piece
from gateway.image.squashfs.pipeline import Pipeline
from gateway.image.squashfs.sources import PlainSource, Source, StreamSource

_SETTLED_TOGETHER = 64
"""Files after which it is said that those before them are settled."""
_SHARED_FROM = 512
"""Bytes from which a small file is compared to others: below, it takes more memory than it saves in the image."""


class DataPass:
    """One pass over all layers, which fills `contents`."""

    def __init__(
        self,
        flattened: Flattened,
        output: Output,
        pipeline: Pipeline,
        contents: Contents,
        block_size: int,
        reader: Executor,
    ) -> None:
        """`reader` is one thread, in which layers are decompressed."""
        self._flattened = flattened
        self._final = flattened.final
        self._output = output
        self._pipeline = pipeline
        self._contents = contents
        self._block_size = block_size
        self._reader = reader
        self._accounts = account_files(flattened.final)
        self._watched = flattened.watched
        self._sizes = SharedSizes(flattened.final.sizes[row] for row in flattened.reached.files())
        self._small, self._large = SmallFiles(), LargeFiles(contents, output)
        self._fragments = Fragments(pipeline, output, block_size)
        self.fragment_table = self._fragments.table

    def run(self, advance: Callable[[int], None], settled: Callable[[int], None]) -> None:
        """Write the contents of all files. `advance` gets the bytes of each once it is read. `settled` gets a row, now
        and then and in the end: the contents of all rows before it have their places.

        Rows were made in the order of the layers and of the members in them, so their numbers give the order.
        Raises ImageInvalid as soon as a layer is known to be wrong.
        """
        final, layers = self._final, {layer.number: layer for layer in self._flattened.layers}
        number, source = 0, None
        for number_of_files, row in enumerate(self._flattened.reached.files()):
            if final.layers[row] != number or source is None:
                number = final.layers[row]
                source = self._source(layers[number])
            if number_of_files % _SETTLED_TOGETHER == 0:
                self._pipeline.then(partial(settled, row))
            self._file(row, source)
            advance(final.sizes[row])
        self._fragments.finish()
        self._pipeline.finish()
        settled(len(final))
        if self._flattened.checks:
            self._flattened.checks.packed()

    def _source(self, layer: Layer) -> Source:
        if layer.is_plain():
            return PlainSource(layer.blob)
        return StreamSource(layer, self._flattened.limits.budget(), self._reader)

    def _file(self, row: int, source: Source) -> None:
        final = self._final
        position, size = final.data[row], final.sizes[row]
        if row in self._accounts or row in self._watched or row in final.sparse:
            self._rare(row, source)
        elif size < self._block_size:
            self._fragment(row, source.read(position, size))
        else:
            ends = range(0, size, self._pipeline.largest)
            self._blocks(row, (source.data(position + at, min(self._pipeline.largest, size - at)) for at in ends))

    def _rare(self, row: int, source: Source) -> None:
        """A file with holes, or one that is judged or kept."""
        final, most = self._final, self._pipeline.largest
        runs = runs_of(source, final.data[row], final.sizes[row], final.sparse.get(row), most)
        if row in self._accounts or row in self._watched:
            text = b"".join(map(bytes, runs))  # whose size was bounded
            if row in self._accounts:
                accounts.check_accounts(self._accounts[row], text)
            if row in self._watched:
                self._flattened.contents[row] = text
            runs = (text[at : at + most] for at in range(0, len(text), most))
        if final.sizes[row] < self._block_size:
            self._fragment(row, b"".join(map(bytes, runs)))
        else:
            self._blocks(row, runs)

    def _fragment(self, row: int, data: bytes) -> None:
        size = len(data)
        same = self._small.same(row, data) if size >= _SHARED_FROM and self._sizes.is_shared(size) else row
        if same == row:
            self._contents.put(row, self._fragments.add(data))
        else:
            self._contents.share_fragment(row, same)

    def _blocks(self, row: int, pieces: Iterable[Piece]) -> None:
        """Have a large file packed."""
        size = self._final.sizes[row]
        is_shared = self._sizes.is_shared(size)
        self._pipeline.then(partial(self._begun, row))
        for piece in pieces:
            self._pipeline.give(piece, partial(self._written, row, is_shared))
        if is_shared:
            self._pipeline.then(partial(self._large.finish, row, size))

    def _begun(self, row: int) -> None:
        self._contents.begin(row, self._output.position)
        self._large.begin()

    def _written(self, row: int, is_shared: bool, data: memoryview, words: Sequence[int]) -> None:
        self._output.add(data)
        if is_shared:
            self._large.add(data)
        self._contents.extend(row, words)
