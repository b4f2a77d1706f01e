"""Layers that were fetched already, by digest, up to a size; the one used longest ago goes first.

A layer is kept for the registry that sent it, and is given only for an image of that registry, after it has said,
asked with the caller's own login, that the image's repository holds the layer: what another registry claims to hold
opens nothing. A file has its name only when it is whole and its digest was checked, so a kill leaves nothing behind.

    layers/<registry>/<digest>       the layer as it was sent
    layers/<registry>/known-<digest> an image's id, by the digest of its manifest: all its layers were checked once
"""

from __future__ import annotations

import contextlib
import os
import secrets
from urllib.parse import quote

from udiroot.errors import UpstreamFailed

_MAX_KNOWN = 20_000
_KNOWN = "known-"


class LayerCache:
    """The cache in `folder`, of one registry. Safe for any number of processes."""

    def __init__(self, folder: str, registry: str, limit: int) -> None:
        """Make the folder. Raises UpstreamFailed."""
        self._top = folder
        self._folder = f"{folder}/{quote(registry, safe=':')}"
        self._limit = limit
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
        except OSError as error:
            raise _failed(self._folder, error) from error

    def new(self) -> int:
        """A file without a name, to fetch a layer into."""
        try:
            return os.open(self._folder, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _failed(self._folder, error) from error

    def find(self, digest: str, size: int) -> int | None:
        """A descriptor of a layer. The caller asks the registry before using it."""
        try:
            descriptor = os.open(self._path(digest), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _failed(self._folder, error) from error
        if os.fstat(descriptor).st_size != size:
            os.close(descriptor)
            return None
        os.utime(descriptor)
        return descriptor

    def keep(self, digest: str, descriptor: int) -> None:
        """Give a file of `new`, whole and checked, its name, and make room. The descriptor stays the caller's."""
        try:
            folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                with contextlib.suppress(FileExistsError):  # somebody else fetched the same
                    # with a directory descriptor, os.link follows the link in /proc (linkat, AT_SYMLINK_FOLLOW)
                    os.link(f"/proc/self/fd/{descriptor}", self._path(digest), src_dir_fd=folder)
            finally:
                os.close(folder)
            self._make_room()
        except OSError as error:
            raise _failed(self._folder, error) from error

    def forget(self, digest: str) -> None:
        """Drop a layer that turned out to be no good."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(digest))

    def remember(self, manifest: str, image_id: str) -> None:
        """The layers of the image that this registry calls `manifest` were all read and checked."""
        path = self._path(manifest, _KNOWN)
        temporary = f"{self._folder}/.new-{secrets.token_hex(8)}"
        try:
            with open(temporary, "x", encoding="ascii") as stream:
                stream.write(image_id)
            os.rename(temporary, path)
        except OSError as error:
            raise _failed(self._folder, error) from error

    def recall(self, manifest: str) -> str:
        """The id that was remembered, or nothing."""
        try:
            with open(self._path(manifest, _KNOWN), encoding="ascii") as stream:
                return stream.read(64)
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise _failed(self._folder, error) from error

    def _path(self, digest: str, prefix: str = "") -> str:
        return f"{self._folder}/{prefix}{digest.removeprefix('sha256:')}"

    def _make_room(self) -> None:
        """Files that are open stay readable when they lose their names."""
        layers: list[tuple[float, int, str]] = []
        known: list[tuple[float, str]] = []
        for registry in os.scandir(self._top):
            for entry in os.scandir(registry.path):
                with contextlib.suppress(FileNotFoundError):  # another process makes room as well
                    status = entry.stat()
                    if entry.name.startswith((_KNOWN, ".new-")):
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
    return UpstreamFailed(f"layer cache {path}: {(error.strerror or str(error)).lower()}")
