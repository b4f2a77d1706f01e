"""What the site and the user have declared for a root: each at one target, attached when the image is in place.

Targets that lie in another mount are walked to one name at a time, following no link, since a user may write there.
Such a mount is complete before it is moved to what the walk has found: no path there is looked up again, since between
two calls it may become a link to a mount of the node.
"""

import os
import stat

from udiroot.errors import SetupFailed, UdiError, printable
from udiroot.kernel import MS_MOVE, mount
from udiroot.layout import DIRECTORY, Leaf
from udiroot.rights import FileRights

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from udiroot.plan import PlanUser

_WALK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Fixture:
    """Something that goes to `target`: a leaf of that `kind`, or with an empty kind only a directory.

    `name` says in messages what it is, and errors that are its declarer's are of the class `error`. `attach` mounts it
    on a path. `text` is that of a link. With `walks_as`, what is in another mount is reached with that user's rights.
    """

    __slots__ = ("attach", "error", "kind", "name", "outer", "path", "target", "text", "walks_as")

    def __init__(
        self,
        target: str,
        kind: str,
        name: str,
        attach: "Callable[[str], None] | None" = None,
        *,
        error: "type[UdiError]" = SetupFailed,
        text: str = "",
        walks_as: "PlanUser | None" = None,
    ) -> None:
        self.target, self.kind, self.name, self.attach = target, kind, name, attach
        self.error, self.text, self.walks_as = error, text, walks_as
        self.path = target
        """Where it is in the root, once that is settled."""
        self.outer: Leaf | None = None
        """The mount that it lies in."""

    def mount(self, root: str, closed: str, ours: "set[int]") -> None:
        """Attach it in the root. `closed` is a directory that no user can reach. `ours` are the devices of file systems
        that start empty, where a missing mount point is created. Raises `error`."""
        if self.attach is None:
            return
        try:
            if self.outer is None:
                self.attach(root + self.path)
                return
            descriptor = self._walk(root + self.outer.path, self.path[len(self.outer.path) + 1 :], ours)
            try:
                place = _mount_point(closed, self.kind)
                self.attach(place)
                mount(place, f"/proc/self/fd/{descriptor}", flags=MS_MOVE)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self.error(f"{self.name}: {error.strerror}") from error

    def _walk(self, outer: str, path: str, ours: "set[int]") -> int:
        """The mount point at `path` in the mount on `outer`; an O_PATH descriptor."""
        descriptor = os.open(outer, _WALK | os.O_DIRECTORY)  # the stage is closed to the user
        user = self.walks_as
        if user is None:
            return self._descend(descriptor, path.split("/"), ours)
        with FileRights(user.uid, user.gid, user.groups):
            return self._descend(descriptor, path.split("/"), ours)

    def _descend(self, descriptor: int, names: "list[str]", ours: "set[int]") -> int:
        """The last of `names` below `descriptor`, which is closed."""
        try:
            for number, name in enumerate(names, 1):
                is_last = number == len(names)
                below = self._enter(descriptor, name, self.kind if is_last else DIRECTORY, ours)
                os.close(descriptor)
                descriptor = below
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _enter(self, directory: int, name: str, kind: str, ours: "set[int]") -> int:
        try:
            below = os.open(name, _WALK, dir_fd=directory)
        except FileNotFoundError:
            if os.fstat(directory).st_dev not in ours:
                raise self.error(f"{self.name}: {self._place()} does not exist", "create it there first") from None
            if kind == DIRECTORY:
                os.mkdir(name, 0o755, dir_fd=directory)
            else:
                os.close(os.open(name, _NEW_FILE, 0o644, dir_fd=directory))
            below = os.open(name, _WALK, dir_fd=directory)
        mode = os.fstat(below).st_mode
        if stat.S_ISDIR(mode) == (kind == DIRECTORY) and not stat.S_ISLNK(mode):
            return below
        os.close(below)
        wanted = "directory" if kind == DIRECTORY else "file"
        found = "a symbolic link" if stat.S_ISLNK(mode) else f"not a {wanted}"
        raise self.error(f"{self.name}: {self._place()} is {found}")

    def _place(self) -> str:
        outer = self.outer.name if self.outer is not None else "the root"
        return f"'{printable(self.path)}' (in {outer})"


def _mount_point(closed: str, kind: str) -> str:
    """Where a mount of that kind can be put together, before it is moved to its place."""
    path = f"{closed}/{kind}"
    if not os.path.lexists(path):
        if kind == DIRECTORY:
            os.mkdir(path, 0o700)
        else:
            os.close(os.open(path, _NEW_FILE, 0o600))
    return path
