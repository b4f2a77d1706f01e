"""What has a temporary name in the image store: files that are being written, and trees that are being removed.

The gateway holds the lock of such a name while it waits for the conversion, on whatever host that runs, or removes the
tree. A file or tree whose lock nobody holds is dead: the next change of names, or the next start, removes it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator

from gateway.image.removing import remove_image
from gateway.store.locks import Locks
from udi.durable import TEMPORARY
from udi.store import StoreLayout


class Temporaries:
    """Those of one store. Safe for threads and processes that share the locks."""

    def __init__(self, layout: StoreLayout, locks: Locks) -> None:
        self._layout = layout
        self._locks = locks
        self._has_graves = False

    @contextlib.contextmanager
    def new(self) -> Iterator[str]:
        """A new path for an image, or a file beside it; if it still exists at the end, it is removed."""
        name = _name()
        path = f"{self._layout.images}/{name}"
        with self._locks.holder() as holder:
            holder.take(self._locks.temporary(name))
            try:
                yield path
            finally:
                remove_image(path)

    def remove_dead(self) -> None:
        """Remove what dead conversions left, but for trees: `empty_graves` does. To be called while the store is
        locked; raises OSError."""
        for directory in (self._layout.images, self._layout.refs):
            for name in os.listdir(directory):
                if name.startswith(TEMPORARY):
                    with self._locks.holder() as holder:
                        is_dead = holder.try_take(self._locks.temporary(name))
                        if is_dead and not os.path.isdir(f"{directory}/{name}"):
                            os.unlink(f"{directory}/{name}")
                        self._has_graves |= is_dead

    def bury(self, name: str) -> None:
        """Take a tree out of the store by a rename; `empty_graves` removes its files without the store's lock, since
        there may be a million of them. To be called while the store is locked; raises OSError."""
        os.rename(f"{self._layout.images}/{name}", f"{self._layout.images}/{_name()}")
        self._has_graves = True

    def empty_graves(self) -> None:
        """Remove trees that were buried, and those of dead conversions. One that another process removes is its."""
        if not self._has_graves:
            return
        self._has_graves = False
        for name in os.listdir(self._layout.images):
            if name.startswith(TEMPORARY) and os.path.isdir(f"{self._layout.images}/{name}"):
                with self._locks.holder() as holder:
                    if holder.try_take(self._locks.temporary(name)):
                        remove_image(f"{self._layout.images}/{name}")


def _name() -> str:
    return f"{TEMPORARY}{secrets.token_hex(12)}"
