"""The index pass: the headers of each layer in turn, applied to the tree by the rules of image layers.

Names are relative to the image's root whatever they look like: a leading slash means nothing, `..` stops at the root,
and symbolic links in a path are followed inside the root, as every runtime does. A `.wh.` name is a whiteout and
never a file. Device nodes are not kept, but they do replace what had their name.
"""

from __future__ import annotations

import logging

from gateway.image import tar_reader, tree, xattrs
from gateway.image.budgets import NAME_COST, HeaderBudget
from gateway.image.tar_reader import ByteStream, Member, Xattrs
from gateway.image.tree import LinkLoop, Tree, shown
from udiroot.errors import ImageInvalid

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_RESERVED = b".wh..wh."
"""Internal to aufs: neither a whiteout nor a file."""
_PSEUDO_LINKS = b".wh..wh.plnk"
"""The directory in which aufs kept files of several names, each by its inode number: hard links of layers that it made
lead there, and only there."""
_KINDS = {
    tar_reader.REGULAR: tree.FILE,
    tar_reader.SYMLINK: tree.SYMLINK,
    tar_reader.FIFO: tree.FIFO,
    tar_reader.CHARACTER: tree.DEVICE,
    tar_reader.BLOCK_DEVICE: tree.DEVICE,
}
_SYMLINK_MODE = 0o777
"""The only mode of symbolic links on Linux, whatever an archive has."""
_LATEST = (1 << 32) - 1
"""squashfs stores times as 32 bits without sign."""

log = logging.getLogger(__name__)


class LayerIndex:
    """Applies one layer's members to the tree."""

    def __init__(self, final: Tree, number: int, label: str, headers: HeaderBudget) -> None:
        self._tree = final
        self._headers = headers
        self._label = label
        self._last_parent: list[bytes] | None = None
        self._last_directory = tree.ROOT
        self._pseudo_links: dict[bytes, int] = {}
        final.start_layer(number)

    def read(self, stream: ByteStream) -> int:
        """Apply all members. Returns how many there were."""
        count = 0
        for member in tar_reader.members(stream, self._label, self._headers):
            self._apply(member)
            count += 1
        return count

    def _apply(self, member: Member) -> None:
        if not member.name:
            log.debug("%s: skipped an entry without a name", self._label)
            return
        parts = clean(member.name)
        if not parts:
            self._root(member)
        elif _WHITEOUT in member.name and any(part.startswith(_WHITEOUT) for part in parts):
            self._marker(parts, member)
        elif member.kind == tar_reader.LINK:
            self._link(parts, member)
        elif member.kind == tar_reader.DIRECTORY:
            self._directory(parts, member)
        else:
            self._node(parts, member)

    def _root(self, member: Member) -> None:
        if member.kind != tar_reader.DIRECTORY:
            raise ImageInvalid(
                f"{self._label}: the entry {shown(member.name)} would replace the root, and is not a directory"
            )
        self._describe(tree.ROOT, member)

    def _directory(self, parts: list[bytes], member: Member) -> None:
        parent, name = self._parent(parts[:-1]), parts[-1]
        row = self._tree.find(parent, name)
        if row is None or self._tree.kinds[row] != tree.DIRECTORY:
            row = self._bind(parent, name, tree.DIRECTORY)
        self._describe(row, member)

    def _node(self, parts: list[bytes], member: Member) -> None:
        row = self._bind(self._parent(parts[:-1]), parts[-1], _KINDS[member.kind])
        self._fill(row, member)

    def _fill(self, row: int, member: Member) -> None:
        self._describe(row, member)
        if member.kind == tar_reader.SYMLINK:
            if not member.linkname:
                raise ImageInvalid(f"{self._label}: symbolic link {shown(member.name)} has an empty target")
            self._tree.set_target(row, member.linkname)
        elif member.kind == tar_reader.REGULAR:
            self._tree.data[row], self._tree.sizes[row] = member.data, member.size
            if member.sparse is not None:
                self._tree.sparse[row] = member.sparse

    def _link(self, parts: list[bytes], member: Member) -> None:
        """A second name for an inode; its attributes stay those of the inode."""
        target = clean(member.linkname)
        found = self._lookup(target) if target else None
        if found is None or self._tree.kinds[found] == tree.DIRECTORY:
            what = "does not exist" if found is None else "is a directory"
            raise ImageInvalid(
                f"{self._label}: {shown(member.name)} is a hard link to {shown(member.linkname)}, which {what}"
            )
        inode = self._tree.inodes.get(found, found)
        parent, name = self._parent(parts[:-1]), parts[-1]
        if self._tree.find(parent, name) == found:
            return
        row = self._bind(parent, name, tree.LINK)
        self._tree.link(row, inode)

    def _marker(self, parts: list[bytes], member: Member) -> None:
        """Apply a `.wh.` name. An opaque marker's directory that is a link is not followed: an opaque `link/` means the
        directory that this layer puts there."""
        parent, name = parts[:-1], parts[-1]
        hidden = name[len(_WHITEOUT) :]
        try:
            if name == _OPAQUE:
                row = self._lookup(parent) if parent else tree.ROOT
                if row is not None and self._tree.kinds[row] == tree.DIRECTORY and self._tree.hide_contents(row):
                    self._last_parent = None
            elif parent == [_PSEUDO_LINKS] and member.kind == tar_reader.REGULAR:
                self._headers.spend(len(name) + NAME_COST)
                self._pseudo_links[name] = row = self._tree.nameless(tree.FILE)
                self._fill(row, member)
            elif not name.startswith(_WHITEOUT) or name.startswith(_RESERVED) or hidden in (b"", b".", b".."):
                log.debug("%s: %s hides nothing", self._label, shown(b"/".join(parts)))
            else:
                row, missing = self._tree.resolve(parent)
                if not missing and self._tree.hide(row, hidden):
                    self._last_parent = None
        except LinkLoop:
            log.debug("%s: %s does not exist, so nothing is hidden", self._label, shown(b"/".join(parts)))

    def _lookup(self, parts: list[bytes]) -> int | None:
        """The row at a path; links in it are followed, except the last part."""
        if parts[:-1] == [_PSEUDO_LINKS]:
            return self._pseudo_links.get(parts[-1])
        row, missing = self._tree.resolve(parts[:-1])
        return None if missing else self._tree.find(row, parts[-1])

    def _parent(self, parts: list[bytes]) -> int:
        """The directory of an entry. Archives list a directory's entries together, so the last one is remembered."""
        if parts != self._last_parent:
            self._last_directory = self._tree.directory(parts)
            self._last_parent = parts
        return self._last_directory

    def _bind(self, parent: int, name: bytes, kind: int) -> int:
        """A new row. It may replace a directory or a link in the path of the remembered parent."""
        if self._tree.find(parent, name) is not None:
            self._last_parent = None
        return self._tree.bind(parent, name, kind)

    def _describe(self, row: int, member: Member) -> None:
        mtime = min(max(member.mtime, 0), _LATEST)
        mode = _SYMLINK_MODE if member.kind == tar_reader.SYMLINK else member.mode
        kept: Xattrs = ()
        if member.xattrs:
            self._tree.has_orders = self._tree.has_orders or xattrs.has_orders(member)
            kept = xattrs.kept(member)
        self._tree.describe(row, mode, (member.uid, member.gid), mtime, kept)


def clean(name: bytes) -> list[bytes]:
    """The parts of a name below the root: no empty ones, no `.`, and each `..` resolved."""
    found = name.split(b"/")
    if b"" not in found and b"." not in found and b".." not in found:  # what nearly all are
        return found
    parts: list[bytes] = []
    for part in found:
        if part == b"..":
            if parts:
                parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return parts
