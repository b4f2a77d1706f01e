"""Paths inside a root that is being composed, resolved without ever leaving it.

The walk opens one component at a time and follows links itself, so that an absolute link, `..`, or a link planted by an
image leads to a place inside the root. It needs no system call that kernels of 3.0 lack (openat2 came with 5.6).
"""

import errno
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

_MAX_LINKS = 40
_WALK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class Place:
    """A file or folder inside the root: an O_PATH descriptor, and its `path` from the root, free of links.

    `with` closes it: an open descriptor of ours would keep a root busy that must be undone.
    """

    __slots__ = ("descriptor", "path")

    def __init__(self, descriptor: int, path: str) -> None:
        self.descriptor, self.path = descriptor, path

    @property
    def handle(self) -> str:
        """A path that mount(2) resolves to just this place, whatever happens to names."""
        return f"/proc/self/fd/{self.descriptor}"

    def close(self) -> None:
        os.close(self.descriptor)

    def __enter__(self) -> "Place":
        return self

    def __exit__(
        self, kind: "type[BaseException] | None", error: "BaseException | None", trace: "TracebackType | None"
    ) -> None:
        self.close()


def resolve(root: str, path: str) -> Place:
    """The place that `path` names inside `root`.

    Raises OSError: ENOENT where a component is missing, ENOTDIR where one is no folder, ELOOP for too many links.
    """
    open_folders = [os.open(root, _WALK | os.O_DIRECTORY)]
    names: list[str] = []
    todo = [name for name in reversed(path.split("/")) if name]
    links = 0
    try:
        while todo:
            name = todo.pop()
            if name == ".":
                continue
            if name == "..":
                if names:
                    names.pop()
                    os.close(open_folders.pop())
                continue
            descriptor = os.open(name, _WALK, dir_fd=open_folders[-1])
            mode = os.fstat(descriptor).st_mode
            if stat.S_ISLNK(mode):
                links += 1
                target = os.readlink("", dir_fd=descriptor)
                os.close(descriptor)
                if links > _MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                if target.startswith("/"):
                    for stale in open_folders[1:]:
                        os.close(stale)
                    del open_folders[1:], names[:]
                todo += [part for part in reversed(target.split("/")) if part]
                continue
            if todo and not stat.S_ISDIR(mode):
                os.close(descriptor)
                raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            open_folders.append(descriptor)
            names.append(name)
        return Place(os.dup(open_folders[-1]), "/" + "/".join(names))
    finally:
        for descriptor in open_folders:
            os.close(descriptor)
