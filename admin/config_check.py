"""What reading the configuration cannot know: owners of all tables, deadlines between them, accounts and programs."""

from __future__ import annotations

import os

import torque_hooks.site_files
from admin.machines import check_tables, machine_of
from admin.sitefiles import site_files
from jobs.deadlines import require_fitting
from torque_hooks.settings import TorqueConfig
from udi.accounts import store_owner
from udi.config import SiteConfig
from udi.planning import node_templates
from udiroot.errors import ConfigError


def check_site(site: SiteConfig, path: str) -> None:
    """Raise ConfigError for the first error of the configuration at `path`, or of what it names on this host."""
    check_tables(site)
    machine = machine_of(site)
    require_fitting(site, machine, site.table(TorqueConfig).prologue_deadline, "torque.prologue_deadline")
    store_owner(site.store.account)
    node_templates(site)
    site_files(site, machine, path)
    programs = {
        **machine.programs(),
        **torque_hooks.site_files.programs(site),
        "install.python": site.install.python,
        **({"install.ssh": f"{site.install.ssh}/sshkey"} if site.ssh.enabled else {}),
    }
    for key, program in programs.items():
        if not os.access(program, os.X_OK):
            raise ConfigError(f"{path}: {key}: {program} is not an executable program on this host")
    if not os.path.isdir(site.store.path):
        raise ConfigError(f"{path}: store.path: {site.store.path} is not a directory on this host")
