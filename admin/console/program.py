"""What all commands of `udi-admin` begin with. What reads the configuration is imported when it is read: some of the
commands need none, and the help needs only the name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from udi.config import SiteConfig

PROGRAM = "udi-admin"


def site_of(config_path: str) -> SiteConfig:
    """The site's configuration; from here on, what this process logs goes where that says."""
    from udi.config import load
    from udi.log import start_log

    site = load(config_path)
    start_log(site, PROGRAM)
    return site
