"""The tree that the layers result in, kept in columns so that a million entries fit in memory.

A *row* is one binding of a name: where it is, what it is, and where its data lies. A hard link is a row of its own
that points to the row with the inode, so that replacing a name never changes what other names are bound to. Rows are
only ever added; a removed name leaves its row unused. Within one layer, rows from `layer_start` on are the layer's own,
which is what whiteouts need to know: they hide what lies below, never what their own layer brings.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator

from gateway.image.budgets import XATTR_COST, HeaderBudget, LinkBudget
from gateway.image.tar_reader import MAX_NAME, Sparse, Xattrs
from udiroot.errors import ImageInvalid, printable

ROOT = 0
DIRECTORY, FILE, SYMLINK, FIFO, DEVICE, LINK = range(6)
IMPLICIT_MODE = 0o755
_MAX_HOPS = 40
"""Symbolic links that one path may lead through: the kernel's own limit."""
_MAX_COMPONENT = 255
_OWNED_BY_ROOT = 0
"""The number of the pair of ids that is always the first."""


class LinkLoop(ImageInvalid):
    """Symbolic links that only lead to each other."""


class Tree:
    """Names to rows, and the columns of rows."""

    def __init__(self, max_entries: int, headers: HeaderBudget) -> None:
        self._max_entries = max_entries
        self._headers = headers
        self._links = LinkBudget(max_entries)
        self.layer_start = 0
        self.layer = 0
        self.kinds = bytearray()
        self.layers = array("H")
        self.modes = array("H")
        self.parents = array("I")
        self.lengths = array("H")
        self.owners = array("I")
        self.mtimes = array("q")
        self.data = array("q")
        self.sizes = array("q")
        self.names: list[bytes] = []
        self.owner_pairs: list[tuple[int, int]] = [(0, 0)]
        self._owner_numbers: dict[tuple[int, int], int] = {(0, 0): _OWNED_BY_ROOT}
        self.children: dict[int, dict[bytes, int]] = {}
        self.targets: dict[int, bytes] = {}
        self.inodes: dict[int, int] = {}
        self.xattrs: dict[int, Xattrs] = {}
        self.has_orders = False
        """Whether any entry had attributes that are orders to the kernel's overlay; none is kept."""
        self.sparse: dict[int, Sparse] = {}
        self._touched: set[int] = set()
        self._cleared: set[int] = set()
        self._new_row(ROOT, b"", DIRECTORY)

    def __len__(self) -> int:
        return len(self.kinds)

    def start_layer(self, number: int) -> None:
        """From here on, what is added belongs to layer `number`."""
        self.layer = number
        self.layer_start = len(self.kinds)
        self._touched.clear()
        self._cleared.clear()

    # Paths

    def resolve(self, parts: list[bytes]) -> tuple[int, list[bytes]]:
        """The row that `parts` lead to, symbolic links followed inside the root, and the parts that do not exist.

        What is in the way but not a directory counts as not existing. Raises LinkLoop.
        """
        row, hops = ROOT, 0
        waiting = parts[::-1]
        missing: list[bytes] = []
        while waiting:
            part = waiting.pop()
            if part == b"..":
                if missing:
                    missing.pop()
                else:
                    row = self.parents[row]
                continue
            if missing:
                missing.append(part)
                continue
            child = self.children.get(row, {}).get(part)
            if child is None:
                missing.append(part)
            elif self.kinds[child] == DIRECTORY:
                row = child
            elif self.kind(child) == SYMLINK:
                hops += 1
                if hops > _MAX_HOPS:
                    raise LinkLoop(f"symbolic links form a loop at {shown(b'/'.join(parts))}")
                target = self.targets[self.inodes.get(child, child)]
                self._links.follow(target)
                if target.startswith(b"/"):
                    row = ROOT
                waiting.extend(part for part in reversed(target.split(b"/")) if part not in (b"", b"."))
            else:
                missing.append(part)
        return row, missing

    def find(self, directory: int, name: bytes) -> int | None:
        """The row bound to `name` in a directory."""
        return self.children.get(directory, {}).get(name)

    def directory(self, parts: list[bytes]) -> int:
        """The directory that `parts` lead to; what is missing is added, with mode 0755, owned by root."""
        row, missing = self.resolve(parts)
        self._touch(row)
        for part in missing:
            row = self.bind(row, part, DIRECTORY)
        return row

    # Changes

    def link(self, row: int, inode: int) -> None:
        """Bind a row made by `bind` to the inode of another; the stream to the packer names that one again."""
        self._headers.spend(self.lengths[inode])
        self.inodes[row] = inode

    def bind(self, directory: int, name: bytes, kind: int) -> int:
        """A new row for `name`; whatever had the name before, and all below it, is removed."""
        if len(name) > _MAX_COMPONENT:
            raise ImageInvalid(f"a name has {len(name)} bytes, the limit is {_MAX_COMPONENT}: {shown(name)}")
        siblings = self.children.get(directory)
        if siblings is None:
            siblings = self.children[directory] = {}
        elif name in siblings:
            self._forget(siblings[name])
        row = siblings[name] = self._new_row(directory, name, kind)
        return row

    def nameless(self, kind: int) -> int:
        """A new row that no name is bound to yet: further rows may be linked to it."""
        return self._new_row(ROOT, b"", kind)

    def describe(self, row: int, mode: int, owner: tuple[int, int], mtime: int, xattrs: Xattrs) -> None:
        """Attributes of a row's inode."""
        self.modes[row] = mode
        self.owners[row] = self._owner(owner)
        self.mtimes[row] = mtime
        self.layers[row] = self.layer
        if self.xattrs:
            self.xattrs.pop(row, None)
        if xattrs:
            self._headers.spend(sum(len(key) + len(value) + XATTR_COST for key, value in xattrs))
            self.xattrs[row] = xattrs

    def set_target(self, row: int, target: bytes) -> None:
        self._headers.spend(len(target))
        self.targets[row] = target

    def hide(self, directory: int, name: bytes) -> bool:
        """A whiteout: removes what lower layers bound to `name` and below it; what this layer bound there stays.

        Returns whether a row that a path led to may be gone.
        """
        child = self.find(directory, name)
        if child is None or child >= self.layer_start:
            return False
        if self.kinds[child] == DIRECTORY and (self.layers[child] == self.layer or child in self._touched):
            return self._clear_lower(child)
        self._forget(child)
        del self.children[directory][name]
        return True

    def hide_contents(self, directory: int) -> bool:
        """An opaque marker: removes what lower layers brought below a directory. Returns as `hide` does."""
        return directory < self.layer_start and self._clear_contents(directory)

    def _clear_lower(self, directory: int) -> bool:
        if self.layers[directory] != self.layer:
            self.describe(directory, IMPLICIT_MODE, (0, 0), 0, ())
        return self._clear_contents(directory)

    def _clear_contents(self, directory: int) -> bool:
        """Each directory is processed once per layer, however many markers it has; False where this one was before."""
        if directory in self._cleared:
            return False
        pending = [directory]
        while pending:
            directory = pending.pop()
            if directory in self._cleared:
                continue
            self._cleared.add(directory)
            kept: dict[bytes, int] = {}
            for name, child in self.children.get(directory, {}).items():
                if child >= self.layer_start:
                    kept[name] = child
                elif self.kinds[child] == DIRECTORY and (self.layers[child] == self.layer or child in self._touched):
                    if self.layers[child] != self.layer:
                        self.describe(child, IMPLICIT_MODE, (0, 0), 0, ())
                    kept[name] = child
                    pending.append(child)
                else:
                    self._forget(child)
            self.children[directory] = kept
        return True

    def _touch(self, row: int) -> None:
        """Remember that this layer brings something below `row`."""
        while row not in self._touched:
            self._touched.add(row)
            row = self.parents[row]

    def _forget(self, row: int) -> None:
        """Free the contents of a removed directory; attributes of files stay, since hard links may be bound to them."""
        pending = [row]
        while pending:
            for child in self.children.pop(pending.pop(), {}).values():
                if self.kinds[child] == DIRECTORY:
                    pending.append(child)

    def _new_row(self, parent: int, name: bytes, kind: int) -> int:
        row = len(self.kinds)
        if row > self._max_entries:
            hint = "limit set by gateway.max_entries"
            raise ImageInvalid(f"the layers have more than {self._max_entries} entries", hint)
        length = self.lengths[parent] + 1 + len(name) if row else 0
        if length > MAX_NAME + 1:  # no system call could name it, and each row would cost its depth
            raise ImageInvalid(f"a path is longer than {MAX_NAME} bytes: it ends in {shown(name)}")
        self._headers.spend(length)
        self.kinds.append(kind)
        self.layers.append(self.layer)
        self.modes.append(IMPLICIT_MODE)
        self.parents.append(parent)
        self.lengths.append(length)
        self.owners.append(_OWNED_BY_ROOT)
        self.mtimes.append(0)
        self.data.append(0)
        self.sizes.append(0)
        self.names.append(name)
        return row

    def _owner(self, pair: tuple[int, int]) -> int:
        number = self._owner_numbers.get(pair)
        if number is None:
            number = self._owner_numbers[pair] = len(self.owner_pairs)
            self.owner_pairs.append(pair)
        return number

    # The result

    def kind(self, row: int) -> int:
        """The kind of a row's inode: a hard link is what it is bound to."""
        return self.kinds[self.inodes.get(row, row)]

    def walk(self) -> Iterator[tuple[int, bytes]]:
        """Every row of the final tree, directories before what is in them, names in byte order; and the path of the
        directory that it is in, with a slash, empty in the root."""
        pending = [(ROOT, b"")]
        while pending:
            row, inside = pending.pop()
            yield row, inside
            children = self.children.get(row)
            if children:
                below = inside + self.names[row] + b"/" if row else b""
                pending.extend((children[name], below) for name in sorted(children, reverse=True))


def shown(name: bytes) -> str:
    """A name of an image, for a message."""
    return printable(name.decode("utf-8", "backslashreplace"))
