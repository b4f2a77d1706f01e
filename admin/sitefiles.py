"""The site's own files, rendered from `templates/site`: hook wrappers, programs, profile snippets, the node's check.

Each value that a shell reads is quoted. Whole files are ours; of a file that belongs to the site or to Cray, one marked
block or one line is.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from typing import Literal

import jinja2

from udi.config import SiteConfig
from udi.nodecommand import check_command
from udi.request import PIN_PREFIX
from udiroot.errors import ConfigError, printable

OURS = "shifter-xc"
"""A word that stands in every file of ours, and by which we know it again."""
ROOT_NAME = "UDI"
_UNITS = "/etc/systemd/system"
_GATEWAY_UNITS = ("udi-gateway.service", "udi-gateway-handle.socket", "udi-gateway-handle@.service")
"""The service, or in its place a process a connection; the site enables one of them."""
_PROGRAMS = {
    "udi": "gateway.client.cli",
    "udi-gateway": "gateway.service.cli",
    "udi-admin": "admin.cli",
    "udi-nodehealth": "admin.nodehealth_cli",
    "udi-submit-filter": "torque_hooks.submit_filter",
}
_MOST_QSTAT_SECONDS = 10


@dataclass(frozen=True)
class SiteFile:
    """A file, and how it goes in: whole, as a marked block of a file, or as the one line that begins with `key`."""

    path: str
    mode: int
    text: str
    kind: Literal["whole", "block", "line"] = "whole"
    key: str = ""


def site_files(site: SiteConfig, config_path: str) -> list[SiteFile]:
    """Every file that a site needs of us, but for the node's zip. Raises ConfigError where one cannot be rendered."""
    render = _Renderer(site, config_path)
    bin_folder, torque = site.install.bin, site.torque
    return [
        SiteFile(f"{torque.mom_priv}/prologue", 0o555, render("prologue")),
        SiteFile(f"{torque.mom_priv}/epilogue", 0o555, render("epilogue")),
        *(
            SiteFile(f"{bin_folder}/{name}", 0o755, render("program", name=name, module=module))
            for name, module in _PROGRAMS.items()
        ),
        SiteFile(f"{site.install.profile}/udi.sh", 0o644, render("udi.sh")),
        SiteFile(f"{site.install.profile}/udi.csh", 0o644, render("udi.csh")),
        SiteFile(site.install.nodehealth_check, 0o755, render("nodehealth-check")),
        *(SiteFile(f"{_UNITS}/{name}", 0o644, render(name)) for name in _GATEWAY_UNITS),
        SiteFile("/etc/xinetd.d/udi-gateway", 0o644, render("udi-gateway.xinetd")),
        SiteFile(site.install.nodehealth_conf, 0o644, render("nodehealth.conf"), "block"),
        SiteFile(site.install.roots_conf, 0o644, f"{ROOT_NAME}={site.node.root}\n", "line", f"{ROOT_NAME}="),
        SiteFile(
            f"{torque.server_home}/torque.cfg",
            0o644,
            f"SUBMITFILTER {bin_folder}/udi-submit-filter\n",
            "line",
            "SUBMITFILTER",
        ),
    ]


class _Renderer:
    """Renders the templates with what they have in common."""

    def __init__(self, site: SiteConfig, config_path: str) -> None:
        self._environment = jinja2.Environment(
            loader=jinja2.PackageLoader("templates", "site"),
            undefined=jinja2.StrictUndefined,
            keep_trailing_newline=True,
            autoescape=False,  # noqa: S701 - shell scripts and plain text; what a shell reads goes through `shell`
        )
        self._environment.filters["shell"] = lambda value: shlex.quote(str(value))
        self._common = {
            "python": sys.executable,
            "config": config_path,
            "qstat": site.torque.qstat,
            "qstat_seconds": min(site.torque.command_deadline, _MOST_QSTAT_SECONDS),
            "pin_prefix": PIN_PREFIX,
            "state": site.jobs.state,
            "root_name": ROOT_NAME,
            "check": check_command(site),
            "root": site.node.root,
            "run": site.node.run,
            "command": f"{site.install.node_prefix}{site.install.nodehealth_check}",
            "bin": site.install.bin,
            "account": site.store.account,
            "socket": site.gateway.socket,
            "address": site.gateway.address,
            "host": site.gateway.address.rpartition(":")[0].strip("[]"),
            "port": site.gateway.address.rpartition(":")[2],
            "connections": site.gateway.connections,
            "connections_per_user": site.gateway.connections_per_user,
        }

    def __call__(self, template: str, /, **further: str) -> str:
        try:
            return self._environment.get_template(f"{template}.j2").render(self._common | further)
        except jinja2.TemplateError as error:
            raise ConfigError(f"template site/{template}.j2 cannot be rendered: {printable(error)}") from error
