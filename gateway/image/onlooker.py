"""Who looks at an image while it is made: at the final tree, and at the contents of a few of its files."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from gateway.image.tree import Tree


class Onlooker(Protocol):
    """Sees what becomes of the layers, and changes nothing."""

    def wanted(self, final: Tree) -> Collection[int]:
        """The inodes of the files whose contents are to be kept in memory while they are packed."""

    def see(self, final: Tree, contents: Mapping[int, bytes]) -> None:
        """The image file was made; `contents` are those of the wanted files that are not empty."""
