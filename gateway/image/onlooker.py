"""Who looks at an image while it is made: at the final tree, and at the contents of a few of its files."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from gateway.image.flatten import Flattened
from gateway.image.squashfs.holes import runs_of
from gateway.image.squashfs.sources import PlainSource
from gateway.image.tree import Tree

_RUN = 1 << 20


class Onlooker(Protocol):
    """Sees what becomes of the layers, and changes nothing."""

    def wanted(self, final: Tree) -> Collection[int]:
        """The inodes of the files whose contents are to be kept in memory while they are packed."""

    def see(self, final: Tree, contents: Mapping[int, bytes]) -> None:
        """The image file was made; `contents` are those of the wanted files that are not empty."""


def contents_of(flattened: Flattened, rows: Collection[int]) -> dict[int, bytes]:
    """The contents of these files, where no data pass reads them: of layers that are not compressed. Raises
    ImageInvalid."""
    final = flattened.final
    sources = {layer.number: PlainSource(layer.blob) for layer in flattened.layers if layer.is_plain()}
    found = {}
    for row in sorted(rows):
        source = sources.get(final.layers[row])
        if source:
            runs = runs_of(source, final.data[row], final.sizes[row], final.sparse.get(row), _RUN)
            found[row] = b"".join(map(bytes, runs))
    return found
