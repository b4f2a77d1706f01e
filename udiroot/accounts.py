"""/etc/passwd and /etc/group of a root: our own lines first, then the system accounts that own the image's files.

The image's file is user text: opened inside the image without following links, limited in size, and only well-formed
lines whose name and number are free are kept, without a password. Numbers are compared as numbers, since the programs
that read the file do so: `00` is root's.
"""

import os
import stat

from udiroot.fields import number

_MAX_BYTES, _MAX_LINES, _MAX_LINE = 1 << 20, 20_000, 4096
"""Limits on the file, on the lines of it that are read, and on the characters of a line."""
_LAST_SYSTEM_ID = 999
_NOBODY = 65534
_FIELDS = {"passwd": 7, "group": 4}
_NUMBERS = {"passwd": (2, 3), "group": (2,)}
"""Which fields are numbers: that of the account first."""
MERGED = tuple(_FIELDS)
"""Names of the files that are merged with the image's own."""


def merged(name: str, ours: str, image_etc: str) -> str:
    """Our lines, then those of the image's `passwd` or `group` for system accounts that are not in ours."""
    kept = [line for line in ours.split("\n") if line]
    rows = [line.split(":") for line in kept]
    names = {row[0] for row in rows}
    numbers = {number(row[2]) for row in rows if len(row) > 2}
    for line in _image_lines(f"{image_etc}/{name}"):
        fields = _account(name, line)
        if fields is None or fields[0] in names or int(fields[2]) in numbers:
            continue
        names.add(fields[0])
        numbers.add(int(fields[2]))
        kept.append(":".join(fields))
    return "\n".join((*kept, ""))


def _account(name: str, line: str) -> "list[str] | None":
    """The fields of a system account, with plain numbers and without a password; None where the line is not one."""
    fields = line.split(":")
    if len(fields) != _FIELDS[name] or len(line) > _MAX_LINE or not line.isprintable() or not _is_plain(fields[0]):
        return None
    for index in _NUMBERS[name]:
        value = number(fields[index])
        if value < 0:
            return None
        fields[index] = str(value)
    if int(fields[2]) > _LAST_SYSTEM_ID and int(fields[2]) != _NOBODY:
        return None
    fields[1] = "x"
    return fields


def _image_lines(path: str) -> "list[str]":
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # absent, a link, or a directory: none that may be read
        return []
    with open(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_BYTES:
            return []
        return stream.read(_MAX_BYTES).decode("utf-8", "replace").split("\n", _MAX_LINES)[:_MAX_LINES]


def _is_plain(name: str) -> bool:
    """Whether a name can only be a name: neither a number, an option, nor the mark of another source of accounts."""
    letters = name.replace("-", "").replace("_", "").replace(".", "")
    return name.isascii() and (name[:1].isalpha() or name[:1] == "_") and (letters.isalnum() or not letters)
