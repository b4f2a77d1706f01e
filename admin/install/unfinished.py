"""What a killed installation left: files that were written, or in part, and never got their names."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable

from admin.install.installed import RECORD, Record
from udi import durable
from udi.config import SiteConfig
from udi.interpreters import link_of
from udi.oserrors import reason
from udiroot.errors import UpstreamFailed

_NAME = re.compile(rf"{re.escape(durable.TEMPORARY)}[0-9a-f]{{24}}")
_SECONDS = 3600.0
"""How old one is that nobody finishes any more: an installation takes seconds."""


def places(prefix: str, record: Record, site: SiteConfig) -> set[str]:
    """The directories in which installations below `prefix` write; those of shared files are where their links lead."""
    paths = [prefix + path for path in (*record.paths(), RECORD, link_of(site)) if path]
    return {os.path.dirname(path) for path in (*paths, *map(os.path.realpath, paths))}


def unfinished(directories: Iterable[str], seconds: float = 0.0) -> list[str]:
    """Such files in the directories that are at least so many seconds old. Raises UpstreamFailed."""
    latest = time.time() - seconds
    found = []
    for directory in sorted(directories):
        try:
            with os.scandir(directory) as entries:
                named = [each for each in entries if _NAME.fullmatch(each.name)]
            found += [each.path for each in named if each.stat(follow_symlinks=False).st_mtime <= latest]
        except FileNotFoundError:
            continue
        except OSError as error:
            raise UpstreamFailed(f"{error.filename or directory}: {reason(error)}") from error
    return found


def remove_unfinished(directories: Iterable[str]) -> None:
    """Remove those that are no other installation's of now. Raises UpstreamFailed."""
    try:
        durable.remove(*unfinished(directories, _SECONDS))
    except OSError as error:
        raise UpstreamFailed(f"{error.filename} cannot be removed: {reason(error)}") from error
