"""Who is informed of how far a conversion is."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the progress of a conversion."""

    def stage(self, name: str, total: int) -> None:
        """A stage begins, such as `reading` the layers or `packing` the image file: `total` bytes, 0 if not known."""

    def advance(self, count: int) -> None:
        """`count` more bytes of the stage are done."""


class LayerProgress(Progress, Protocol):
    """Receives the progress of each layer, too."""

    def layer(self, digest: str, done: int, total: int) -> None:
        """So many bytes of one layer are here. Called from several threads."""
