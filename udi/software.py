"""Where the node software is: one file for each version that was installed, and a link to the one of now.

    <directory of install.zip>/udi.zip -> udi-<16 hex digits of its sha256>.zip

Hooks resolve the link on the job host, once for each command, and nodes are told the file: so all nodes of a step run
the same software, whenever it is replaced, and a job is taken down by what set it up.
"""

from __future__ import annotations

import os
import re

from udi.config import SiteConfig

_DIGITS = 16


def versioned(name: str, sha256: str) -> str:
    """The name of a version's own file, where the link is called `name`."""
    stem, extension = os.path.splitext(name)
    return f"{stem}-{sha256[:_DIGITS]}{extension}"


def is_version(name: str, file: str) -> bool:
    """Whether `file` is the name of a version's own file, where the link is called `name`."""
    stem, extension = os.path.splitext(name)
    return bool(re.fullmatch(rf"{re.escape(stem)}-[0-9a-f]{{{_DIGITS}}}{re.escape(extension)}", file))


def current(site: SiteConfig) -> str:
    """The node software of now, as a node sees it.

    Where nodes do not see the very directory of `install.zip`, but a copy, it is `node.zip`, whatever that is.
    """
    zip_file, link = site.node.zip, site.install.zip
    if zip_file not in (link, site.install.node_prefix + link):
        return zip_file
    try:
        target = os.readlink(link)
    except OSError:
        return zip_file
    return f"{os.path.dirname(zip_file)}/{target}" if is_version(os.path.basename(link), target) else zip_file


def here(site: SiteConfig, archive: str) -> str:
    """Where this host has the file of a version that nodes see at `archive`."""
    return f"{os.path.dirname(site.install.zip)}/{os.path.basename(archive)}"
