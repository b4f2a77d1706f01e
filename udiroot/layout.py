"""The tree of a root, settled before anything is mounted.

The image's directories and the names that shifter-xc, the site and the user put among them become one tree: a
`Directory` for each directory on the way to such a name, and a `Leaf` for the name itself. A directory that must gain
or replace a name is *opened*; all others are the image's own, unchanged. A link, a file or nothing where a mount
belongs is replaced by a mount point.
"""

import os
import stat

from udiroot.errors import SetupFailed, UdiError, printable
from udiroot.targets import ImageTree

DIRECTORY, FILE, OWN, LINK = "directory", "file", "own file", "link"
"""Kinds of a leaf: a mount point that is a directory or a file, a file that the caller writes, and a symbolic link."""
_LONGEST_NAME, _LONGEST_PATH = 255, 2048
"""Bytes that a name may have (the kernel's limit), and a path in the root: it is longer while the root is composed."""


class Leaf:
    """A name in the root that is not the image's.

    `path` is where it is in the root, `name` says in messages what is there, `text` is that of a link.
    """

    __slots__ = ("kind", "name", "path", "text")

    def __init__(self, path: str, kind: str, name: str, text: str = "") -> None:
        self.path, self.kind, self.name, self.text = path, kind, name, text


class Directory:
    """A directory of the root that is or leads to a leaf's.

    `source` is the directory of the image whose entries it shows, None where it shows none. `is_new` is true where the
    image has no directory at that path, so that `source` is another one or None; `is_opened` where it gains or replaces
    a name, or is new.
    """

    __slots__ = ("entries", "is_new", "is_opened", "path", "source")

    def __init__(self, path: str, source: "str | None", *, is_new: bool) -> None:
        self.path, self.source, self.is_new, self.is_opened = path, source, is_new, is_new
        self.entries: dict[str, Directory | Leaf] = {}

    def directories(self) -> "list[Directory]":
        """Its entries that are directories of the tree."""
        return [entry for entry in self.entries.values() if isinstance(entry, Directory)]


class Layout:
    """The tree of one root. An outer name is to be put in before those below it."""

    __slots__ = ("_tree", "top")

    def __init__(self, tree: ImageTree) -> None:
        self._tree = tree
        self.top = Directory("", "", is_new=False)
        self.top.is_opened = True

    def put(self, leaf: Leaf, error: "type[UdiError]" = SetupFailed) -> "Leaf | None":
        """Put a leaf into the tree; the mount that it lies in, where it lies in one.

        Two mounts at one path are both made, in the order of the calls. Raises `error` where the leaf cannot be there.
        """
        _require_short(leaf.path, leaf.name, error)
        above, _, last = leaf.path.rpartition("/")
        parent = self._descend(above, leaf.name, error)
        if isinstance(parent, Leaf):
            return parent
        there = parent.entries.get(last)
        if isinstance(there, Directory) and there.entries:
            raise error(f"{leaf.name}: it would hide what else is in {printable(there.path)}")
        if isinstance(there, Leaf):
            if there.kind == LINK or leaf.kind == LINK or (there.kind == DIRECTORY) != (leaf.kind == DIRECTORY):
                raise error(f"{leaf.name}: {there.name} has the same target")
            return None
        parent.entries[last] = leaf
        parent.is_opened |= not self._has_mount_point(parent, last, leaf.kind)
        return None

    def put_directory(self, path: str, name: str) -> None:
        """Make sure that there is a directory. Raises SetupFailed."""
        _require_short(path, name, SetupFailed)
        there = self._descend(path, name, SetupFailed)
        if isinstance(there, Leaf) and there.path != path:
            raise SetupFailed(f"{name}: it lies in {there.name}, where shifter-xc creates nothing")

    def hides(self, path: str) -> bool:
        """Whether a leaf at that path, if it is a mount, hides a directory of the image that has entries."""
        above, _, last = path.rpartition("/")
        directory = self.top
        for name in above.split("/")[1:]:
            entry = directory.entries.get(name)
            if not isinstance(entry, Directory):
                return False  # it lies in another mount
            directory = entry
        return self._tree.has_entries(directory.source, last)

    def _descend(self, path: str, what: str, error: "type[UdiError]") -> "Directory | Leaf":
        """The directory of the tree at `path`, or the mount on the way in which it lies."""
        directory = self.top
        for name in path.split("/")[1:]:
            entry = directory.entries.get(name)
            if entry is None:
                entry = self._directory_of(directory, name)
                directory.entries[name] = entry
                directory.is_opened |= entry.is_new
            if isinstance(entry, Leaf):
                if entry.kind == DIRECTORY:
                    return entry
                raise error(f"{what}: it lies below {entry.name}, which is not a directory")
            directory = entry
        return directory

    def _directory_of(self, parent: Directory, name: str) -> Directory:
        path, mode = f"{parent.path}/{name}", self._tree.mode(parent.source, name)
        if stat.S_ISDIR(mode):
            return Directory(path, f"{parent.source}/{name}", is_new=False)
        source = self._tree.behind(f"{parent.source}/{name}") if stat.S_ISLNK(mode) else None
        return Directory(path, source, is_new=True)

    def _has_mount_point(self, parent: Directory, name: str, kind: str) -> bool:
        """Whether the image itself has what can be mounted on."""
        mode = self._tree.mode(parent.source, name)
        return stat.S_ISDIR(mode) if kind == DIRECTORY else kind == FILE and stat.S_ISREG(mode)


def _require_short(path: str, what: str, error: "type[UdiError]") -> None:
    """Raises `error` for a path that cannot be created; the reason first, since a report has little room."""
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise error(f"path of more than {_LONGEST_PATH} bytes in the root: {what}")
    longest = max(len(os.fsencode(name)) for name in path.split("/"))
    if longest > _LONGEST_NAME:
        raise error(f"name of {longest} bytes, more than {_LONGEST_NAME}, in the root: {what}")
