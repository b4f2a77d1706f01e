"""The inventory of an image: what the scanner is shown, one JSON object.

    version       1
    image, arch   the image's id, and its architecture
    distribution  the variables of its os-release, by their names in lower case
    packages      each with manager (dpkg, apk, rpm), name, version, arch, source, source_version
    setid         paths of set-uid and set-gid programs, which have no effect in jobs
    files         each [path, kind, mode, size]: kind is file, directory, symlink, fifo
    entries       how many files the image has; there are fewer in `files` where all would be too many
    installed     how many packages it has
    unread        what could not be read, one sentence each: a scanner must not take it for clean

It is kept beside the image, compressed, so that another scan reads no image.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import IO

from gateway.audit.databases import Databases
from gateway.audit.packages import Package
from gateway.image import tree
from gateway.image.tree import Tree
from udiroot.errors import UpstreamFailed, printable

VERSION = 1
_KINDS = {tree.DIRECTORY: "directory", tree.FILE: "file", tree.SYMLINK: "symlink", tree.FIFO: "fifo"}
_SETID = 0o6000
_MAX_SETID = 10_000
_LEVEL = 3
_MAX_UNREAD = 100
_REST = ', "entries"'
"""What begins the end of the document. Within a text, its quotes would be escaped."""
_SPARE = 1 << 16
"""Bytes that are left for the end of the document."""


class InventoryMaker:
    """Looks at an image that is made, and writes its inventory to a file of the store's."""

    def __init__(self, path: str, image_id: str, arch: str, most: int) -> None:
        """`most` is the limit on the bytes of the document, before it is compressed."""
        self._path = path
        self._head = {"version": VERSION, "image": image_id, "arch": arch}
        self._most = most
        self._databases: Databases | None = None

    def wanted(self, final: Tree) -> Collection[int]:
        """The files that tell what is installed."""
        self._databases = Databases.of(final)
        return set(self._databases.files.values())

    def see(self, final: Tree, contents: Mapping[int, bytes]) -> None:
        """Write the inventory, and have it on disk. Raises OSError."""
        databases = self._databases or Databases.of(final)
        release, packages = databases.read(contents)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            with gzip.GzipFile("", "wb", _LEVEL, stream, mtime=0) as packed:
                self._write(_Bounded(packed, self._most), final, release, packages, databases.unread)
            stream.flush()
            os.fsync(descriptor)

    def _write(
        self, output: _Bounded, final: Tree, release: dict[str, str], packages: list[Package], unread: list[str]
    ) -> None:
        head = json.dumps({**self._head, "distribution": release})
        output.write(head[:-1])
        kept = output.items("packages", (json.dumps(dataclasses.asdict(each)) for each in packages))
        if kept < len(packages):
            unread.append(f"packages: {kept} of {len(packages)} are listed")
        setid = list(_setid(final))
        if len(setid) > _MAX_SETID:
            unread.append(f"set-id programs: {_MAX_SETID} of {len(setid)} are listed")
        output.items("setid", map(json.dumps, setid[:_MAX_SETID]))
        listed = output.items("files", map(json.dumps, _files(final)))
        entries = sum(1 for _ in _rows(final))
        if listed < entries:
            unread.append(f"files: {listed} of {entries} are listed, the limit is set by audit.max_inventory_bytes")
        rest = {"entries": entries, "installed": len(packages), "unread": unread[:_MAX_UNREAD]}
        output.write(f"{_REST}{json.dumps(rest)[len(_REST) - 1 :]}", force=True)


@dataclass(frozen=True)
class Rest:
    """What the end of an inventory says: how many packages there are, and what could not be read."""

    installed: int
    unread: tuple[str, ...]


def read_rest(path: str, most: int) -> Rest:
    """The end of the inventory in this file, in little memory. Raises UpstreamFailed where it is damaged."""
    end, size = b"", 0
    try:
        with gzip.open(path, "rb") as stream:
            while piece := stream.read(_SPARE):
                end = (end + piece)[-2 * _SPARE :]
                size += len(piece)
                if size > most:
                    raise UpstreamFailed(f"the inventory has more than {most} bytes", "audit.max_inventory_bytes")
        document = json.loads(b"{" + end[end.rindex(_REST.encode()) + 2 :])
        return Rest(int(document["installed"]), tuple(map(str, document["unread"])))
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
        raise UpstreamFailed(f"the inventory cannot be read: {printable(error)}") from error


class _Bounded:
    """A document that is written until it would be too large."""

    def __init__(self, stream: IO[bytes] | gzip.GzipFile, most: int) -> None:
        self._stream = stream
        self._left = most - _SPARE

    def write(self, text: str, *, force: bool = False) -> bool:
        """Write a text, if there is room for it."""
        if len(text) > self._left and not force:
            return False
        self._left -= len(text)
        self._stream.write(text.encode())
        return True

    def items(self, name: str, texts: Iterator[str]) -> int:
        """An array, as far as there is room. Returns how many items it has."""
        self.write(f', "{name}": [', force=True)
        count = 0
        for text in texts:
            if not self.write(f", {text}" if count else text):
                break
            count += 1
        self.write("]", force=True)
        return count


def _rows(final: Tree) -> Iterator[tuple[bytes, int, int]]:
    """What a job finds: directory with its slash, row and inode."""
    for row, inside in final.walk():
        inode = final.inodes.get(row, row)
        if row != tree.ROOT and final.kinds[inode] in _KINDS:
            yield inside, row, inode


def _files(final: Tree) -> Iterator[list[object]]:
    for inside, row, inode in _rows(final):
        kind = _KINDS[final.kinds[inode]]
        yield [_text(inside + final.names[row]), kind, final.modes[inode], final.sizes[inode]]


def _setid(final: Tree) -> Iterator[str]:
    for inside, row, inode in _rows(final):
        if final.kinds[inode] == tree.FILE and final.modes[inode] & _SETID:
            yield _text(inside + final.names[row])


def _text(path: bytes) -> str:
    return "/" + path.decode("utf-8", "backslashreplace")
