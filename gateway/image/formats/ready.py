"""An image file that a publisher wants in the store as it is.

Its files were read in user space, as those of any other source, and make the image's id. Here it is compared with that
reading: what would be left out of a new image file would still be in this one.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from gateway.image import tree
from gateway.image.blob import Blob
from gateway.image.flatten import Flattened
from udiroot.errors import ImageInvalid, UpstreamFailed

_PIECE = 1 << 20
_HINT = "without --keep, a new image file is made, which has none"


def keep(flattened: Flattened, ready: Blob, output: str, advance: Callable[[int], None]) -> None:
    """Copy the file to `output`. Raises ImageInvalid where it has what no image file of ours has, OSError."""
    final = flattened.final
    if any(final.kind(row) == tree.DEVICE for row, _ in final.walk()):
        raise ImageInvalid("the file system has device nodes", _HINT)
    if final.has_orders:
        raise ImageInvalid("the file system has attributes that are orders to the kernel's overlay", _HINT)
    with open(output, "xb") as stream:
        os.fchmod(stream.fileno(), 0o600)
        at = 0
        while at < ready.size:
            piece = ready.read_at(at, _PIECE)
            if not piece:
                raise UpstreamFailed("the file became shorter while it was copied")
            stream.write(piece)
            at += len(piece)
            advance(len(piece))
