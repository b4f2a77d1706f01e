"""The interpreter of a bundle: a directory for each version, and beside them a link to the one of now.

    /opt/udi/python -> python-3.11.2-0123456789ab

The configuration names the link (`install.python`, `node.python`), and programs the directory of their own version.
The node software has the name of the directory whose Python it was compiled for (`udi.nodezip`), and is run by that: so
both change at one moment, with the link to the software, and a job is taken down by the Python that set it up, although
another could not read what was compiled for this one.
"""

from __future__ import annotations

import os
import re
import struct
import sys

from udi.config import SiteConfig

ENTRY = "interpreter"
"""The first file of the node software, where it is for the interpreter of a bundle: the name of its directory."""
_HEAD = struct.Struct("<4s14xIIHH")
"""Of a zip's first entry: signature, bytes as stored, bytes, and those of its name and of what else is before it."""
_MAX_NAME = 100
_NAME = re.compile(rb"[A-Za-z0-9_][A-Za-z0-9._-]*")


def link_of(site: SiteConfig) -> str:
    """Where the link is: the directory that has `install.python` in its `bin`; empty where it has another place."""
    directory, program = os.path.split(os.path.dirname(site.install.python))
    return directory if program == "bin" else ""


def own(site: SiteConfig) -> str:
    """The name of the directory whose Python this process runs by, where that is a version of the one that is
    configured, beside its link; else empty."""
    link, (beside, name) = link_of(site), os.path.split(sys.base_prefix)
    is_version = os.path.dirname(link) == beside and name.startswith(f"{os.path.basename(link)}-")
    return name if link and is_version and os.path.islink(link) else ""


def python_in(site: SiteConfig, name: str) -> str:
    """`install.python`, of the version whose directory is called `name`."""
    link = link_of(site)
    return f"{os.path.dirname(link)}/{name}{site.install.python[len(link) :]}"


def compiled_for(archive: str) -> str:
    """The name of the directory whose Python the node software at a path was compiled for; empty where it does not say.

    Raises OSError where it cannot be read.
    """
    with open(archive, "rb") as stream:
        head = stream.read(_HEAD.size + len(ENTRY) + _MAX_NAME)
    if len(head) < _HEAD.size:
        return ""
    signature, stored, size, length, extra = _HEAD.unpack_from(head)
    name, text = head[_HEAD.size :][:length], head[_HEAD.size + length :][:size]
    is_ours = signature == b"PK\3\4" and name == ENTRY.encode() and stored == size == len(text) and not extra
    return text.decode("ascii") if is_ours and _NAME.fullmatch(text) else ""


def for_software(site: SiteConfig, archive: str) -> tuple[str, ...]:
    """`node.python` for the node software at a path of this host: by the directory that it was compiled for, where that
    is still there. Software that cannot be read here is the nodes' to complain about."""
    link = link_of(site)
    try:
        name = compiled_for(archive) if link else ""
    except OSError:
        return site.node.python
    if not name or not os.path.isdir(f"{os.path.dirname(link)}/{name}"):
        return site.node.python
    return tuple(_replaced(word, site.install.node_prefix, link, name) for word in site.node.python)


def _replaced(word: str, node_prefix: str, link: str, name: str) -> str:
    for before in (node_prefix, ""):
        if word.startswith(f"{before}{link}/"):
            return f"{before}{os.path.dirname(link)}/{name}{word[len(before + link) :]}"
    return word
