"""What a Cray needs installed: the name of the image root for ALPS, the switch in users' shells, and NHC's check."""

from __future__ import annotations

from udi.config import SiteConfig
from udi.nodecommand import check_command
from udi.sitefiles import Renderer, SiteFile

ROOT_NAME = "UDI"
"""How ALPS calls the image root: in roots.conf, and in CRAY_ROOTFS."""


def site_files(site: SiteConfig, render: Renderer) -> list[SiteFile]:
    """The files of a Cray. Raises ConfigError where one cannot be rendered."""
    install = site.install
    check = render("alps", "nodehealth-check", check=check_command(site, site.node.nid_file))
    stanza = render("alps", "nodehealth.conf", command=f"{install.node_prefix}{install.nodehealth_check}")
    return [
        SiteFile(f"{install.profile}/udi.sh", 0o644, render("alps", "udi.sh", root_name=ROOT_NAME)),
        SiteFile(f"{install.profile}/udi.csh", 0o644, render("alps", "udi.csh", root_name=ROOT_NAME)),
        SiteFile(install.nodehealth_check, 0o755, check),
        SiteFile(install.nodehealth_conf, 0o644, stanza, "block"),
        SiteFile(install.roots_conf, 0o644, f"{ROOT_NAME}={site.node.root}\n", "line", f"{ROOT_NAME}="),
    ]
