"""Paths inside a root that is being composed, resolved without ever leaving it.

An absolute link, `..`, or a link planted by an image leads to a path inside the root. Kernels since 5.6 do it in one
call; on others a walk opens one component at a time and follows the links itself.
"""

import errno
import os
import stat

from udiroot.kernel import open_in_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

_MAX_LINKS = 40
_WALK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class Place:
    """A file or directory inside the root: an O_PATH descriptor, and its `path` from the root, free of links.

    `with` closes it: an open descriptor would keep a root busy that must be undone.
    """

    __slots__ = ("descriptor", "path")

    def __init__(self, descriptor: int, path: str) -> None:
        self.descriptor, self.path = descriptor, path

    @property
    def handle(self) -> str:
        """A path that mount(2) resolves to this very file or directory, whatever happens to names."""
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
    """What `path` names inside `root`.

    Raises OSError: ENOENT where a component is missing, ENOTDIR where one is not a directory, ELOOP for too many links.
    """
    top = os.open(root, _WALK | os.O_DIRECTORY)
    try:
        descriptor = open_in_root(top, path)
        inside = os.readlink(f"/proc/self/fd/{descriptor}")[len(os.readlink(f"/proc/self/fd/{top}")) :]
        return Place(descriptor, inside or "/")
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
    finally:
        os.close(top)
    return walk(root, path)


def walk(root: str, path: str) -> Place:
    """What `resolve` does where the kernel has no openat2."""
    if not path:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    open_directories = [os.open(root, _WALK | os.O_DIRECTORY)]
    names: list[str] = []
    todo = _parts(path)
    links = 0
    try:
        while todo:
            name = todo.pop()
            if name == ".":
                continue
            if name == "..":
                if names:
                    names.pop()
                    os.close(open_directories.pop())
                continue
            descriptor = os.open(name, _WALK, dir_fd=open_directories[-1])
            mode = os.fstat(descriptor).st_mode
            if stat.S_ISLNK(mode):
                links += 1
                target = os.readlink("", dir_fd=descriptor)
                os.close(descriptor)
                if links > _MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                if target.startswith("/"):
                    for stale in open_directories[1:]:
                        os.close(stale)
                    del open_directories[1:], names[:]
                todo += _parts(target)
                continue
            if todo and not stat.S_ISDIR(mode):
                os.close(descriptor)
                raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            open_directories.append(descriptor)
            names.append(name)
        return Place(os.dup(open_directories[-1]), "/" + "/".join(names))
    finally:
        for descriptor in open_directories:
            os.close(descriptor)


def _parts(path: str) -> "list[str]":
    """The components of a path, the last first. A trailing slash requires a directory, as `.` does."""
    names = [name for name in reversed(path.split("/")) if name]
    return [".", *names] if path.endswith("/") else names
