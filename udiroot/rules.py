"""The rules of the root: which names an image may have where we add our own, and where nobody may mount anything.

One place for all who must agree: the gateway refuses such an image and the prologue such a volume; the node checks
again.
"""

import os

from udiroot.errors import ImageInvalid, printable

OURS = ("/etc", "/proc", "/sys", "/dev", "/opt/udi", "/var/nodelist")
"""No volume may be mounted on these, in them, or over them: they belong to shifter-xc or to the kernel."""
KEPT = ("/bin", "/sbin", "/lib", "/lib64", "/usr", "/opt", "/var", "/run", "/tmp", "/var/tmp")
"""No volume may be mounted on these or over them, since the image needs them; one may be mounted in them."""
COMPOSED = ("etc", "var", "opt")
"""Directories of the top level with entries of the image and our own side by side."""

_FIRST = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.+")
_REST = _FIRST | {"-"}


def is_within(path: str, directory: str) -> bool:
    """Whether `path` is `directory` or lies below it, by components: /scratch2 is not within /scratch."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def in_real_directory(path: str) -> str:
    """The path without links above its last name, as in the kernel's table of mounts: /var/run is often a link."""
    above, _, name = path.rpartition("/")
    return f"{os.path.realpath(above or '/').rstrip('/')}/{name}"


def check_name(name: str, where: str) -> None:
    """Require that a root can have `name` directly in `where`, which is `/`, `/etc`, `/var` or `/opt`.

    The one rule for such names: of an image when it is converted and when it is mounted, and of our own files of /etc.
    Raises ImageInvalid.
    """
    if not name or name in (".", "..") or name[0] not in _FIRST or not _REST.issuperset(name):
        raise ImageInvalid(
            f"invalid name '{printable(name)}' in {where}",
            "names there consist of letters, digits and _ . + -, and do not begin with -",
        )


def is_forbidden(target: str, mounted: "tuple[str, ...] | list[str]" = ()) -> bool:
    """Whether a volume must not be mounted on `target`: it may neither hide nor lie in anything in `OURS` or `mounted`,
    nor hide anything that the image needs."""
    closed = (*OURS, *mounted)
    hides = any(is_within(kept, target) for kept in (*KEPT, *closed))
    return hides or any(is_within(target, path) for path in closed)
