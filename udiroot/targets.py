"""Where declared targets are in a root, whatever links its image has.

No link of the image decides where something is mounted. One above a target's last name is followed to another directory
of the image, as in `/lib64 -> usr/lib64`, but never onto, into or over what shifter-xc owns or anything else that is
declared: such a link is *replaced* by a directory with the same content, and the target has the path that was declared.
"""

import errno
import os
import stat

from udiroot.inroot import resolve
from udiroot.rules import is_forbidden

_LONGEST = 1024
"""Bytes of a directory's path in the image that a link may lead to, so that paths below it stay within the kernel's
limit."""


class ImageTree:
    """The directories of the image mounted at `image`, by paths without links.

    The top is the empty path, and None is the directory that the image does not have.
    """

    __slots__ = ("_image",)

    def __init__(self, image: str) -> None:
        self._image = image

    def mode(self, directory: "str | None", name: str) -> int:
        """The mode of a name in a directory of the image; 0 where there is none."""
        if directory is None:
            return 0
        try:
            return os.stat(f"{self._image}{directory}/{name}", follow_symlinks=False).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return 0
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:  # no file has such a name
                return 0
            raise

    def has_entries(self, directory: "str | None", name: str) -> bool:
        """Whether a name in a directory of the image is itself a directory, with something in it."""
        if not stat.S_ISDIR(self.mode(directory, name)):
            return False
        with os.scandir(f"{self._image}{directory}/{name}") as entries:
            return any(entries)

    def behind(self, link: str) -> "str | None":
        """The directory of the image that a link leads to; None where it leads to nothing, or to something else."""
        try:
            with resolve(self._image, link) as place:
                is_directory = stat.S_ISDIR(os.fstat(place.descriptor).st_mode)
                is_usable = is_directory and len(os.fsencode(place.path)) <= _LONGEST
                return place.path.rstrip("/") if is_usable else None
        except OSError:  # dangling, a loop, or through something that is not a directory
            return None


class Targets:
    """The paths in the root of everything `declared`. `owned` are the paths of shifter-xc, none of which goes through
    a link."""

    __slots__ = ("_paths", "_replaced", "_tree")

    def __init__(self, tree: ImageTree, owned: "tuple[str, ...]", declared: "tuple[str, ...]") -> None:
        self._tree = tree
        self._replaced: set[str] = set()
        for path in owned:
            self._replaced.update(self._followed(path, frozenset())[1])
        targets = outer_first(declared)
        while not self._settled(targets, owned):
            pass  # each time one more link of the image is replaced

    def path(self, target: str) -> str:
        """The path of a declared target in the root: no name of it but the last is a link there."""
        return self._paths[target]

    def _settled(self, targets: "list[str]", owned: "tuple[str, ...]") -> bool:
        """Whether this time no more links had to be replaced."""
        self._paths: dict[str, str] = {}
        taken = _Taken((*owned, *targets))
        is_settled = True
        for target in targets:
            outer = next((path for path in _prefixes(target)[-2::-1] if path in self._paths), "")
            if outer:  # it lies in that one, wherever that is
                self._paths[target] = self._paths[outer] + target[len(outer) :]
                continue
            path, links = self._followed(target, taken.paths)
            if links and (is_forbidden(path) or taken.meets(path)):
                self._replaced.update(links)
                is_settled = False
                continue
            self._paths[target] = path
            if links:
                taken.add(path)
        return is_settled

    def _followed(self, target: str, closed: "set[str] | frozenset[str]") -> "tuple[str, list[str]]":
        """`target` with links above its last name followed, and the paths of these links in the root."""
        *above, last = target.split("/")[1:]
        path, links = "", list[str]()
        source: str | None = ""
        for number, name in enumerate(above):
            if path in closed:  # the rest lies in what is mounted there
                return "/".join((path, *above[number:], last)), links
            path = f"{path}/{name}"
            mode = self._tree.mode(source, name)
            if stat.S_ISLNK(mode):
                source = self._tree.behind(f"{source}/{name}")
                if source is not None and path not in self._replaced:
                    links.append(path)
                    path = source
            else:
                source = f"{source}/{name}" if stat.S_ISDIR(mode) else None
        return f"{path}/{last}", links


class _Taken:
    """Paths that no link may lead to, into or above. Whether one does is known without comparing it to each of them."""

    __slots__ = ("_above", "paths")

    def __init__(self, paths: "tuple[str, ...]") -> None:
        self.paths: set[str] = set()
        self._above: set[str] = set()
        for path in paths:
            self.add(path)

    def add(self, path: str) -> None:
        self.paths.add(path)
        self._above.update(_prefixes(path))

    def meets(self, path: str) -> bool:
        """Whether `path` is one of them, or above or below one."""
        return path in self._above or not self.paths.isdisjoint(_prefixes(path))


def _prefixes(path: str) -> "list[str]":
    """The directories on the way to `path`, and itself."""
    names = path.split("/")
    return ["/".join(names[:count]) for count in range(2, len(names) + 1)]


def outer_first(targets: "tuple[str, ...] | list[str]") -> "list[str]":
    """Paths in an order in which each comes after all that it lies in."""
    return sorted(targets, key=lambda path: path.split("/"))
