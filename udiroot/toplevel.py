"""The image's own names in a root: its top level, and the directories that also hold our own entries.

Directories and files of the image are bound read-only; links are recreated as links and never followed. `etc`, `var`
and `opt` are new directories that get the image's entries one by one, so that ours can be next to them.
"""

import os
import stat

from udiroot.kernel import MS_BIND, mount
from udiroot.rules import COMPOSED, check_name

_OURS_ON_TOP = frozenset(("proc", "sys", "dev", "tmp", *COMPOSED))


def bind_image(image: str, root: str, ours: "dict[str, frozenset[str]]") -> None:
    """Give `root` the names of the image mounted at `image`, except those in `ours` (composed directory → our names).

    Raises ImageInvalid for a name that the rules of the root refuse.
    """
    _bind_entries(image, root, _OURS_ON_TOP, "/ of the image")
    for directory in COMPOSED:
        os.mkdir(f"{root}/{directory}", 0o755)
        source = f"{image}/{directory}"
        if _is_real_directory(source):
            _bind_entries(source, f"{root}/{directory}", ours.get(directory, frozenset()), f"/{directory} of the image")


def _bind_entries(source: str, target: str, ours: "frozenset[str]", where: str) -> None:
    with os.scandir(source) as entries:
        for entry in entries:
            name = entry.name
            if name in ours or name == "lost+found":
                continue
            check_name(name, where)
            path = f"{target}/{name}"
            if entry.is_symlink():
                os.symlink(os.readlink(entry.path), path)
            elif entry.is_dir(follow_symlinks=False):
                os.mkdir(path, 0o755)
                mount(entry.path, path, flags=MS_BIND)
            elif entry.is_file(follow_symlinks=False):
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
                mount(entry.path, path, flags=MS_BIND)


def _is_real_directory(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False
