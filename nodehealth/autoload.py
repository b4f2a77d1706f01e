"""Whether a kernel would load a file system by itself, when one of that kind is mounted.

mount(2) of an unknown kind makes the kernel run modprobe for `fs-KIND` (before Linux 3.9: for KIND), as root and with
the node's own files. So modprobe, its list of modules and the module's file must be there, and nobody may have
forbidden it: `install` and `blacklist` of modprobe.d are how a site hardens its kernels, squashfs among the first.
"""

import os

from udiroot import modules, smallfile

_MODPROBE = "/proc/sys/kernel/modprobe"
"""What the kernel runs; empty where nothing shall be loaded."""
_DISABLED = "/proc/sys/kernel/modules_disabled"
_MODULES = "/lib/modules"
_DIRECTORIES = ("/etc/modprobe.d", "/run/modprobe.d", "/usr/lib/modprobe.d", "/lib/modprobe.d")


def loads_itself(kind: str) -> bool:
    """Whether the kernel has a module for file systems of this kind, and will load it when one is mounted."""
    directory = f"{_MODULES}/{os.uname().release}"
    modprobe = _text(_MODPROBE).strip()
    if not modprobe or not os.access(modprobe, os.X_OK) or _text(_DISABLED).strip() == "1" or _is_forbidden(kind):
        return False
    listed = (line.partition(":")[0] for line in _text(f"{directory}/modules.dep").split("\n"))
    return any(
        modules.name_of(path) == kind and os.path.isfile(os.path.join(directory, path)) for path in listed if path
    )


def _is_forbidden(kind: str) -> bool:
    """Another command in its place, as `install squashfs /bin/false`, or no load by an alias, as `fs-squashfs` is."""
    files = (
        f"{directory}/{name}" for directory in _DIRECTORIES for name in _names(directory) if name.endswith(".conf")
    )
    lines = (line.split() for path in files for line in _text(path).split("\n"))
    return any(words[:1] in (["install"], ["blacklist"]) and words[1:2] in ([kind], [f"fs-{kind}"]) for words in lines)


def _names(directory: str) -> "list[str]":
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _text(path: str) -> str:
    """All of a file; nothing where there is none that can be read."""
    try:
        return smallfile.read(path).decode("utf-8", "replace")
    except OSError:
        return ""
