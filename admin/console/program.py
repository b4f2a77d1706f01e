"""What all commands of `udi-admin` begin with."""

from __future__ import annotations

from udi.config import SiteConfig, load
from udi.log import start_log

PROGRAM = "udi-admin"


def site_of(config_path: str) -> SiteConfig:
    """The site's configuration; from here on, what this process logs goes where that says."""
    site = load(config_path)
    start_log(site, PROGRAM)
    return site
