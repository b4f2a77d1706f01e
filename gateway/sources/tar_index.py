"""The members of an outer archive by name, found in one pass: `docker save` and OCI archives, entries in any order."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from gateway.image import tar_reader
from gateway.image.blob import Blob
from gateway.image.compression import compression_of
from gateway.image.layers import BlobStream
from gateway.image.magic import FIRST_BYTES, recognize
from udiroot.errors import ImageInvalid, printable

_MAX_MEMBERS = 100_000
_MAX_HOPS = 8


class TarIndex:
    """Names of an archive to blobs in it. Links are followed by name, within the archive only."""

    def __init__(self, archive: Blob, what: str) -> None:
        kind = recognize(archive.read_at(0, FIRST_BYTES))
        if kind or compression_of(archive) != "plain":
            raise ImageInvalid(
                f"{what} is {kind.name if kind else 'compressed'}",
                kind.hint if kind else "decompress it first: gunzip, zstd -d",
            )
        self._blobs: dict[str, Blob] = {}
        self._links: dict[str, str] = {}
        self._sparse: set[str] = set()
        """Files whose bytes are not all stored: they are no blobs."""
        for count, member in enumerate(tar_reader.members(BlobStream(archive, what), what)):
            if count >= _MAX_MEMBERS:
                raise ImageInvalid(f"{what} has more than {_MAX_MEMBERS} members, so it is not a saved image")
            self._add(archive, member)

    def _add(self, archive: Blob, member: tar_reader.Member) -> None:
        name, target = _clean(member.name), member.linkname.decode("utf-8", "surrogateescape")
        self._blobs.pop(name, None)
        self._links.pop(name, None)
        self._sparse.discard(name)
        if member.sparse is not None:
            self._sparse.add(name)
        elif member.kind == tar_reader.REGULAR:
            self._blobs[name] = Blob(archive.descriptor, archive.offset + member.data, member.size)
        elif member.kind == tar_reader.SYMLINK:
            self._links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
        elif member.kind == tar_reader.LINK:
            self._links[name] = _clean(member.linkname)

    def names(self) -> Iterator[str]:
        """The names of all files and links."""
        yield from self._blobs
        yield from self._links

    def find(self, name: str) -> Blob | None:
        """The blob called `name`, however its path is spelled; a symbolic link stands for another layer's file in
        archives of older Dockers."""
        name = _clean(name.encode("utf-8", "surrogateescape"))
        for _ in range(_MAX_HOPS):
            if name in self._blobs:
                return self._blobs[name]
            if name in self._sparse:
                raise ImageInvalid(
                    f"'{printable(name)}' is a sparse file in the archive",
                    "make it again without tar's option --sparse",
                )
            if name not in self._links:
                return None
            name = self._links[name]
        raise ImageInvalid(f"links in the archive form a loop at '{printable(name)}'")


def _clean(name: bytes) -> str:
    return posixpath.normpath(name.decode("utf-8", "surrogateescape").lstrip("/"))
