"""The rules of the root: which names an image may have where we add our own, and where nobody may mount anything.

One place for all who must agree: the gateway refuses such an image and the prologue such a volume; the node checks
again.
"""

import os

from udiroot.errors import ImageInvalid, printable

SOFTWARE = "/opt/udi"
"""Programs and files of shifter-xc in a root."""
OURS = ("/etc", "/proc", "/sys", "/dev", SOFTWARE, "/var/nodelist")
"""No volume may be mounted on these, in them, or over them: they belong to shifter-xc or to the kernel."""
KEPT = ("/bin", "/sbin", "/lib", "/lib64", "/usr", "/opt", "/var", "/run", "/tmp", "/var/tmp")
"""No volume may be mounted on these or over them, since the image needs them; one may be mounted in them."""
COMPOSED = ("/etc", "/var", "/opt")
"""Directories with entries of the image and our own side by side."""

_CONTROLS = frozenset((*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0))))


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
    Blanks and UTF-8 are harmless; a control character could forge a line, a leading `-` an option. Raises ImageInvalid.
    """
    fault = _fault(name)
    if fault:
        raise ImageInvalid(f"invalid name '{printable(name)}' in {where}", fault)


def check_names(names: "list[str]", where: str) -> None:
    """`check_name` for each of many names, in a few passes of the interpreter's own loops where all are plain."""
    joined = "/".join(names)
    if joined.isprintable() and not joined.startswith("-") and "/-" not in joined:
        return
    for name in names:
        check_name(name, where)


def hides_ours(target: str) -> bool:
    """Whether a mount of the site on `target` would hide what makes a root, or lie in what only shifter-xc fills."""
    return any(is_within(path, target) for path in OURS) or is_within(target, SOFTWARE)


def is_forbidden(target: str, mounted: "tuple[str, ...] | list[str]" = ()) -> bool:
    """Whether a volume must not be mounted on `target`: it may neither hide nor lie in anything in `OURS`, nor hide
    anything that the image needs or that is `mounted`. It may lie in what is mounted."""
    hides = any(is_within(kept, target) for kept in (*KEPT, *OURS, *mounted))
    return hides or any(is_within(target, path) for path in OURS)


def _fault(name: str) -> str:
    """What is wrong with a name, as a hint; empty if nothing."""
    if not name or name in (".", "..") or "/" in name:
        return "it is not the name of a file"
    if name[0] == "-":
        return "names there must not begin with -"
    if not _CONTROLS.isdisjoint(name):
        return "names there must not contain control characters"
    if any("\ud800" <= character <= "\udfff" for character in name):
        return "names there must be UTF-8"
    return ""
