"""Every file that a site needs of shifter-xc: what all sites need, and what the workload manager and machine bring."""

from __future__ import annotations

import os

from admin.seams.managers import manager_of
from admin.sitefiles.documents import document_files
from outside.site_files import session_files
from udi.config import SiteConfig
from udi.platform import Machine
from udi.sitefiles import Renderer, SiteFile

_UNITS = "/etc/systemd/system"
_GATEWAY_UNITS = ("udi-gateway.service", "udi-gateway-handle.socket", "udi-gateway-handle@.service")
"""The service, or in its place a process per connection; the site enables one of them."""
_METRICS_UNITS = ("udi-gateway-metrics.service", "udi-gateway-metrics.timer")
"""Where metrics are on."""
_PROGRAMS = {
    "udi": "outside.cli",
    "udi-gateway": "gateway.service.cli",
    "udi-admin": "admin.cli",
    "udi-nodehealth": "admin.nodehealth_cli",
}


def site_files(site: SiteConfig, machine: Machine, config_path: str) -> list[SiteFile]:
    """All files but the node software. Raises ConfigError where one cannot be rendered."""
    render = Renderer(site, config_path)
    programs = (
        SiteFile(f"{site.install.bin}/{name}", 0o755, render.program(name, module))
        for name, module in _PROGRAMS.items()
    )
    manager = manager_of(site)
    return [
        *manager.site_files(render),
        *programs,
        *session_files(site, render),
        *_gateway_files(site, render),
        *_rotation(site, render),
        *document_files(site),
        *(machine.site_files(render) if manager.has_machine else ()),
    ]


def _gateway_files(site: SiteConfig, render: Renderer) -> list[SiteFile]:
    host, _, port = site.gateway.address.rpartition(":")
    values: dict[str, object] = {
        "account": site.store.account,
        "socket": site.gateway.socket,
        "runtime": _runtime_directory(site.gateway.socket),
        "address": site.gateway.address,
        "host": host.strip("[]"),
        "port": port,
        "connections": site.gateway.connections,
        "connections_per_user": site.gateway.connections_per_user,
        "workers": site.gateway.workers,
        "conversion_bytes": 2 * site.gateway.conversion_memory_bytes
        + site.gateway.layer_memory_bytes,  # worker, packer, layers
    }
    names = (*_GATEWAY_UNITS, *(_METRICS_UNITS if site.metrics.directory else ()))
    units = [SiteFile(f"{_UNITS}/{name}", 0o644, render("templates", name, **values)) for name in names]
    xinetd = render("templates", "udi-gateway.xinetd", **values)
    return [*units, SiteFile("/etc/xinetd.d/udi-gateway", 0o644, xinetd)]


def _rotation(site: SiteConfig, render: Renderer) -> list[SiteFile]:
    """The hooks' log is kept from growing, where it is a file and the site has logrotate."""
    if not (site.jobs.log and site.install.logrotate):
        return []
    return [
        SiteFile(f"{site.install.logrotate}/udi-hooks", 0o644, render("templates", "udi.logrotate", log=site.jobs.log))
    ]


def _runtime_directory(socket: str) -> str:
    """The directory below /run that systemd makes for the service; none, where the site keeps the socket elsewhere."""
    directory = os.path.dirname(socket)
    return next((directory.removeprefix(run) for run in ("/run/", "/var/run/") if directory.startswith(run)), "")
