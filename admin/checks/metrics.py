"""Where node_exporter finds our figures: a directory of its own, so it is not ours to make."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from admin.checks.check import Check, Finding, wrong
from udi.config import SiteConfig


def checks(site: SiteConfig) -> list[Check]:
    """Of the directory, where figures are wanted."""
    if not site.metrics.directory:
        return []
    return [Check("metrics.directory", "figures can be put there, and not by anybody", lambda: _there(site))]


def _there(site: SiteConfig) -> Iterator[Finding]:
    path = site.metrics.directory
    if not os.path.isdir(path):
        yield wrong(f"metrics.directory: {path} is not a directory on this host")
    elif os.stat(path).st_mode & stat.S_IWOTH:
        yield wrong(f"metrics.directory: anybody may write {path}", f"chmod o-w {path}")
