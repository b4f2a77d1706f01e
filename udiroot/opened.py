"""The image's names and ours in the same directories of a root that is being composed.

First the *skeleton*: every directory and mount point of the layout, on the root's own tmpfs. Then the image: a
directory of the top level that must not gain a name is bound as it is, and one that must is opened. An overlay opens it
where the kernel has one that needs no writable layer (4.0): the skeleton's directory above the image's, which is always
the lowest, so that no mark of the image's own can hide anything of ours. Elsewhere it is opened by binds of all its
entries, up to a limit. Both are read-only and show the same.
"""

import errno
import os
import resource
import stat

from udiroot.binds import FROZEN
from udiroot.errors import ImageInvalid, printable
from udiroot.kernel import MS_BIND, MS_REMOUNT, mount
from udiroot.layout import DIRECTORY, FILE, LINK, Directory, Leaf
from udiroot.rules import COMPOSED, check_names

_MOST_BINDS = 8192
"""Entries of the image that may be bound in one root: each is a mount, and costs set-up and teardown a third of a
millisecond when there are many."""
_CROWDED = 1024
"""A top level with more entries than this is opened by an overlay, too. All others are bound, so that programs read
what is below directly from the image's own file system."""
_OPTIONS = (",xino=on,redirect_dir=nofollow,metacopy=off", "")
"""`xino=on`: a file's st_dev is that of a line of mountinfo (4.17); the others refuse what an image could ask of an
overlay (4.15, 4.19). Kernels that lack one of them refuse it, and never do what it turns off in a lowest layer."""
_NO_OVERLAY = (errno.ENODEV, errno.EINVAL, errno.ENOSYS, errno.EPERM)
"""The kernel has no overlay, or not one of several read-only layers, or not on this file system."""
_USUAL_DESCRIPTORS = 200
"""Directories that may be kept open without a thought for the limit of open files."""
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def build_skeleton(directory: Directory, image: str, root: str) -> None:
    """Create the directories and mount points of the layout on the root's tmpfs. A directory of the image keeps its
    owner and mode there."""
    for entry in directory.entries.values():
        path = f"{root}{entry.path}"
        if isinstance(entry, Directory):
            os.mkdir(path, 0o755)
            if entry.source is not None:
                status = os.stat(image + entry.source)
                os.chown(path, status.st_uid, status.st_gid)
                os.chmod(path, stat.S_IMODE(status.st_mode) & 0o1777)
            build_skeleton(entry, image, root)
        elif entry.kind == DIRECTORY:
            os.mkdir(path, 0o755)
        elif entry.kind == FILE:
            os.close(os.open(path, _NEW_FILE, 0o644))
        elif entry.kind == LINK:
            os.symlink(entry.text, path)


class Opener:
    """Shows the image mounted at `image` in the skeleton at `root`. `label` is the source of the overlays."""

    __slots__ = ("_binds", "_has_overlay", "_image", "_label", "_root", "_skeleton")

    def __init__(self, image: str, root: str, label: str) -> None:
        self._image, self._root, self._label = image, root, label
        self._skeleton: dict[str, int] = {}
        self._has_overlay = True
        self._binds = 0

    def show(self, top: Directory, target: str) -> str:
        """Show the image in all directories of the layout; the path of the root, which is the skeleton's own, or
        `target` where a crowded top level is an overlay of its own.

        Raises ImageInvalid for a name that a root cannot have, and for more entries than can be bound.
        """
        names = os.listdir(self._image)
        check_names(names, "/ of the image")
        for directory in top.directories():
            if directory.path in COMPOSED and directory.source is not None:
                check_names(os.listdir(self._image + directory.source), f"{directory.path} of the image")
        try:
            self._keep_skeleton(top)
            if len(names) > _CROWDED:
                os.mkdir(target, 0o755)
                if self._overlay(top, target):
                    self._root = target
                    self._open_new(top)
                    return target
            self._bind_entries(top)
        finally:
            for descriptor in self._skeleton.values():
                os.close(descriptor)
        return self._root

    def _keep_skeleton(self, directory: Directory) -> None:
        """Keep each opened directory's skeleton open: what is mounted above it may cover its path."""
        if directory.is_opened and directory.source is not None:
            if len(self._skeleton) == _USUAL_DESCRIPTORS:
                most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
                resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
            self._skeleton[directory.path] = os.open(self._root + directory.path, _DIRECTORY)
        for below in directory.directories():
            self._keep_skeleton(below)

    def _open(self, directory: Directory, *, is_covered: bool) -> None:
        """Show the image in an opened directory. `is_covered` where the image is mounted above its skeleton."""
        if directory.source is None:
            return
        point = self._root + directory.path
        if self._overlay(directory, point):
            self._open_new(directory)
            return
        if is_covered:
            mount(f"/proc/self/fd/{self._skeleton[directory.path]}", point, flags=MS_BIND)
        self._bind_entries(directory)
        if is_covered:
            mount("", point, flags=MS_BIND | MS_REMOUNT | FROZEN)

    def _open_new(self, directory: Directory) -> None:
        """What an overlay does not show by itself: directories below it that have the entries of another directory."""
        for below in directory.directories():
            if below.is_new:
                self._open(below, is_covered=True)
            else:
                self._open_new(below)

    def _open_below(self, directory: Directory) -> None:
        """Open what must be opened below a directory that is the image's own."""
        for below in directory.directories():
            if below.is_opened:
                self._open(below, is_covered=True)
            else:
                self._open_below(below)

    def _overlay(self, directory: Directory, point: str) -> bool:
        """Mount the skeleton above the image; False where this kernel cannot."""
        if not self._has_overlay:
            return False
        lowest = os.open(f"{self._image}{directory.source}", _DIRECTORY)
        layers = f"lowerdir=/proc/self/fd/{self._skeleton[directory.path]}:/proc/self/fd/{lowest}"
        try:
            for options in _OPTIONS:
                try:
                    mount(self._label, point, "overlay", FROZEN, layers + options)
                except OSError as error:
                    if error.errno not in _NO_OVERLAY:
                        raise
                else:
                    return True
        finally:
            os.close(lowest)
        self._has_overlay = False
        return False

    def _bind_entries(self, directory: Directory) -> None:
        """Bind what the image has in a directory next to our own names, which stay."""
        point = self._root + directory.path
        with os.scandir(f"{self._image}{directory.source}") as entries:
            for entry in entries:
                known = directory.entries.get(entry.name)
                if (
                    isinstance(known, Leaf)
                    or (known is not None and known.is_opened)
                    or _is_of_mkfs(directory, entry.name)
                ):
                    continue
                path = f"{point}/{entry.name}"
                if entry.is_symlink():
                    os.symlink(os.readlink(entry.path), path)
                    continue
                self._count(directory)
                if not entry.is_dir(follow_symlinks=False):
                    os.close(os.open(path, _NEW_FILE, 0o644))
                elif known is None:
                    os.mkdir(path, 0o755)
                mount(entry.path, path, flags=MS_BIND)
        for below in directory.directories():
            if below.is_opened:
                self._open(below, is_covered=False)
            else:
                self._open_below(below)

    def _count(self, directory: Directory) -> None:
        self._binds += 1
        if self._binds > _MOST_BINDS:
            raise ImageInvalid(
                f"{printable(directory.path or '/')} of the image has too many entries: this node's kernel has no"
                f" overlay, and more than {_MOST_BINDS} would have to be bound",
                "put fewer files directly into that directory, or mount nothing in it",
            )


def _is_of_mkfs(directory: Directory, name: str) -> bool:
    return name == "lost+found" and directory.source == ""
