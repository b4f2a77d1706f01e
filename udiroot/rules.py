"""The rules of the root: which names an image may have where we add our own, and where nobody may mount anything.

One place for all who must agree: the gateway refuses such an image, the prologue such a volume; the node asks again.
"""

import os

from udiroot.errors import ImageInvalid, printable

OURS = ("/etc", "/proc", "/sys", "/dev", "/opt/udi", "/var/nodelist")
"""No volume may be mounted on these, in them, or over them: what stands there is ours or the kernel's."""
KEPT = ("/bin", "/sbin", "/lib", "/lib64", "/usr", "/opt", "/var", "/run", "/tmp", "/var/tmp")
"""No volume may be mounted on these or over them, since the image cannot live without them; in them it may."""
COMPOSED = ("etc", "var", "opt")
"""Folders of the top level that hold entries of the image and of ours side by side."""

_FIRST = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.+")
_REST = _FIRST | {"-"}


def is_within(path: str, folder: str) -> bool:
    """Whether `path` is `folder` or lies below it, by components: /scratch2 is not within /scratch."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def in_real_folder(path: str) -> str:
    """The path with no link above its last name, as the kernel's table of mounts has it: /var/run is often a link."""
    above, _, name = path.rpartition("/")
    return f"{os.path.realpath(above or '/').rstrip('/')}/{name}"


def check_name(name: str, where: str) -> None:
    """Whether a name directly in `/`, `/etc`, `/var` or `/opt` of an image is taken. Raises ImageInvalid."""
    if not name or name in (".", "..") or name[0] not in _FIRST or not _REST.issuperset(name):
        raise ImageInvalid(
            f"the image has the name '{printable(name)}' in {where}, which the rules of the root refuse",
            "names there are of letters, digits and _ . + -, and do not begin with -",
        )


def is_forbidden(target: str, mounted: "tuple[str, ...] | list[str]" = ()) -> bool:
    """Whether a volume may not be mounted on `target`: nothing of ours, nor of what is `mounted`, may be hidden by it
    or hold it, and nothing that the image needs may be hidden."""
    closed = (*OURS, *mounted)
    hides = any(is_within(kept, target) for kept in (*KEPT, *closed))
    return hides or any(is_within(target, place) for place in closed)
