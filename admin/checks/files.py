"""Files that are rendered: that they can be, and that those installed are what would be installed now."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

from admin.checks.check import Check, Finding, fine, raised, warning
from admin.install.installing import planned
from udi.accounts import account_of_uid
from udi.config import SiteConfig
from udi.etcfiles import node_files
from udi.nodes import named
from udi.sitefiles import SiteFile, is_ours

SiteFiles = Callable[[], Sequence[SiteFile]]
"""What renders all files of the site, as an installation would. Raises ConfigError."""
_SHOWN = 3


def checks(site: SiteConfig, site_files: SiteFiles) -> list[Check]:
    """Checks of the configuration."""
    return [Check("templates", "files of roots and of the site can be rendered", lambda: _rendered(site, site_files))]


def trials(site_files: SiteFiles) -> list[Check]:
    """What is installed on this host."""
    return [
        Check("installed", "every installed file is of this version and configuration", lambda: _as_now(site_files))
    ]


def _rendered(site: SiteConfig, site_files: SiteFiles) -> Iterator[Finding]:
    yield from raised(lambda: _render_roots(site), path=site.path)
    yield from raised(site_files, path=site.path)


def _render_roots(site: SiteConfig) -> None:
    """As for a job of this account, on a node with and without a private sshd. Raises ConfigError."""
    user = account_of_uid(os.geteuid())
    for addresses in ({}, {named("localhost"): "127.0.0.1"} if site.ssh.enabled else {}):
        for _ in node_files(site, user, addresses):
            pass


def _as_now(site_files: SiteFiles) -> Iterator[Finding]:
    """Only files that are there: which hosts get which of them, the site decides."""
    there = [file for file in site_files() if _is_installed(file)]
    if not there:
        yield fine("nothing is installed here yet")
        return
    plan = planned("", there)
    old = [path for path, _, _ in plan.files]
    if old:
        more = f" and {len(old) - _SHOWN} more" if len(old) > _SHOWN else ""
        yield warning(
            f"not of this version or configuration: {_listed(old)}{more}",
            "udi-admin install (udi-admin render shows what it would write)",
        )


def _is_installed(file: SiteFile) -> bool:
    """Ours as a whole; lines and blocks in files of others are the site's to have."""
    if file.kind != "complete" or not os.path.isfile(file.path):
        return False
    try:
        with open(file.path, encoding="utf-8", errors="surrogateescape") as stream:
            return is_ours(stream.read(1 << 20))
    except OSError:
        return False


def _listed(paths: Sequence[str]) -> str:
    return ", ".join(sorted(paths)[:_SHOWN])
