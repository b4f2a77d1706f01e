"""/etc/passwd and /etc/group of a root: our own lines first, then the system accounts that own the image's files.

The image's file is user text: opened inside the image without following links, limited in size, and only well-formed
lines whose name and number are free are kept, without a password.
"""

import os
import stat

_MAX_BYTES = 1 << 20
_LAST_SYSTEM_ID = 999
_NOBODY = 65534
_FIELDS = {"passwd": 7, "group": 4}
MERGED = tuple(_FIELDS)
"""Names of the files that are merged with the image's own."""


def merged(name: str, ours: str, image_etc: str) -> str:
    """Our lines, then those of the image's `passwd` or `group` for system accounts that are not in ours."""
    kept = [line for line in ours.split("\n") if line]
    names = {line.split(":", 1)[0] for line in kept}
    numbers = {line.split(":")[2] for line in kept}
    for line in _image_lines(f"{image_etc}/{name}"):
        fields = line.split(":")
        if len(fields) != _FIELDS[name] or not _is_plain(fields[0]) or not fields[2].isdecimal():
            continue
        number = int(fields[2])
        if fields[0] in names or fields[2] in numbers or (number > _LAST_SYSTEM_ID and number != _NOBODY):
            continue
        names.add(fields[0])
        numbers.add(fields[2])
        fields[1] = "x"
        kept.append(":".join(fields))
    return "\n".join((*kept, ""))


def _image_lines(path: str) -> "list[str]":
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # absent, a link, or a directory: none that may be read
        return []
    with open(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_BYTES:
            return []
        return stream.read(_MAX_BYTES).decode("utf-8", "replace").split("\n")


def _is_plain(name: str) -> bool:
    return bool(name) and name.isascii() and name.replace("-", "").replace("_", "").replace(".", "").isalnum()
