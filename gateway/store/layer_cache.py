"""Layers that were fetched already, by digest, up to a size; the least recently used is removed first.

A layer is kept for the registry that sent it, and is used only for an image of that registry, after the registry has
confirmed, queried with the caller's own credentials, that the image's repository has the layer: what another registry
claims to have opens nothing. A file has its name only when it is complete and its digest was checked, so a kill leaves
nothing behind.

    layers/<registry>/<digest>       the layer as it was sent
    layers/<registry>/known-<digest> an image's id, by the digest of its manifest: all its layers were checked once
"""

from __future__ import annotations

import contextlib
import os
from urllib.parse import quote

from udi import durable
from udi.oserrors import reason
from udiroot.errors import UpstreamFailed

_MAX_KNOWN = 20_000
_KNOWN = "known-"


class LayerCache:
    """The cache of one registry, below `directory`. Safe for any number of processes."""

    def __init__(self, directory: str, registry: str, limit: int) -> None:
        """Make the directory; `limit` is on the bytes of all registries' layers. Raises UpstreamFailed."""
        self._top = directory
        self._directory = f"{directory}/{quote(registry, safe=':')}"
        self._limit = limit
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
        except OSError as error:
            raise _failed(self._directory, error) from error

    def new(self) -> int:
        """A file without a name, to fetch a layer into."""
        try:
            return os.open(self._directory, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _failed(self._directory, error) from error

    def find(self, digest: str, size: int) -> int | None:
        """A descriptor of a layer. The caller queries the registry before using it."""
        try:
            descriptor = os.open(self._path(digest), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _failed(self._directory, error) from error
        if os.fstat(descriptor).st_size != size:
            os.close(descriptor)
            return None
        os.utime(descriptor)
        return descriptor

    def keep(self, digest: str, descriptor: int) -> None:
        """Give a file of `new`, complete and checked, its name, and make room. The caller still owns the descriptor."""
        try:
            directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                with contextlib.suppress(FileExistsError):  # another process fetched the same
                    # with a directory descriptor, os.link follows the link in /proc (linkat, AT_SYMLINK_FOLLOW)
                    os.link(f"/proc/self/fd/{descriptor}", self._path(digest), src_dir_fd=directory)
            finally:
                os.close(directory)
            self._make_room()
        except OSError as error:
            raise _failed(self._directory, error) from error

    def forget(self, digest: str) -> None:
        """Remove a layer that turned out to be wrong."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(digest))

    def remember(self, manifest: str, image_id: str) -> None:
        """Record that all layers of the image whose manifest has this digest were read and checked."""
        try:
            durable.write(self._path(manifest, _KNOWN), image_id)
        except OSError as error:
            raise _failed(self._directory, error) from error

    def recall(self, manifest: str) -> str:
        """The id that was recorded, or empty."""
        try:
            with open(self._path(manifest, _KNOWN), encoding="ascii") as stream:
                return stream.read(64)
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise _failed(self._directory, error) from error

    def _path(self, digest: str, prefix: str = "") -> str:
        return f"{self._directory}/{prefix}{digest.removeprefix('sha256:')}"

    def _make_room(self) -> None:
        """Files that are open stay readable when they lose their names."""
        layers: list[tuple[float, int, str]] = []
        known: list[tuple[float, str]] = []
        for registry in os.scandir(self._top):
            for entry in os.scandir(registry.path):
                with contextlib.suppress(FileNotFoundError):  # another process is making room as well
                    status = entry.stat()
                    if entry.name.startswith((_KNOWN, durable.TEMPORARY)):
                        known.append((status.st_mtime, entry.path))
                    else:
                        layers.append((status.st_mtime, status.st_size, entry.path))
        total = sum(size for _, size, _ in layers)
        gone = [path for _, path in sorted(known)[: max(0, len(known) - _MAX_KNOWN)]]
        for _, size, path in sorted(layers):
            if total <= self._limit:
                break
            total -= size
            gone.append(path)
        for path in gone:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def _failed(path: str, error: OSError) -> UpstreamFailed:
    return UpstreamFailed(f"layer cache {path}: {reason(error)}")
