"""The image's own names in a root: its top level, and the folders that we add to.

Folders and files of the image are bound read-only, links are made again as links and never followed. `etc`, `var` and
`opt` are made new and get the image's entries one by one, so that ours can stand beside them.
"""

import os
import stat

from udiroot.kernel import MS_BIND, mount
from udiroot.rules import COMPOSED, check_name

_OURS_ON_TOP = frozenset(("proc", "sys", "dev", "tmp", *COMPOSED))


def bind_image(image: str, root: str, ours: "dict[str, frozenset[str]]") -> None:
    """Give `root` the names of the image mounted at `image`, but for those in `ours` (composed folder → our names).

    Raises ImageInvalid for a name that the rules of the root refuse.
    """
    _bind_entries(image, root, _OURS_ON_TOP)
    for folder in COMPOSED:
        os.mkdir(f"{root}/{folder}", 0o755)
        source = f"{image}/{folder}"
        if _is_real_folder(source):
            _bind_entries(source, f"{root}/{folder}", ours.get(folder, frozenset()))


def _bind_entries(source: str, target: str, ours: "frozenset[str]") -> None:
    with os.scandir(source) as entries:
        for entry in entries:
            name = entry.name
            if name in ours or name == "lost+found":
                continue
            check_name(name, source)
            place = f"{target}/{name}"
            if entry.is_symlink():
                os.symlink(os.readlink(entry.path), place)
            elif entry.is_dir(follow_symlinks=False):
                os.mkdir(place, 0o755)
                mount(entry.path, place, flags=MS_BIND)
            elif entry.is_file(follow_symlinks=False):
                os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
                mount(entry.path, place, flags=MS_BIND)


def _is_real_folder(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False
