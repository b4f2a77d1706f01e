"""The directory of the metrics."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from admin.checks.check import Check, Finding, wrong
from udi.config import SiteConfig


def checks(site: SiteConfig) -> list[Check]:
    """Checks of the configuration, where the site has metrics."""
    path = site.metrics.directory
    return [Check("metrics.directory", f"{path} is root's to write", lambda: _directory(path))] if path else []


def _directory(path: str) -> Iterator[Finding]:
    """It is node_exporter's, so it is not ours to make."""
    if not os.path.isdir(path):
        yield wrong(f"metrics.directory: {path} is not a directory on this host")
    elif os.stat(path).st_mode & stat.S_IWOTH:
        yield wrong(f"metrics.directory: anybody may write {path}", f"chmod o-w {path}")
