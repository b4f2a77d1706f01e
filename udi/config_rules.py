"""The rules of the configuration that the type of one key cannot say."""

from __future__ import annotations

import ipaddress
import os
import re
from typing import TYPE_CHECKING

from udi.registries import check_registries
from udiroot.errors import ConfigError, printable
from udiroot.plan import STEPS
from udiroot.rules import is_within

if TYPE_CHECKING:
    from udi.config import SiteConfig, SystemConfig

_PLAIN = re.compile(r"[A-Za-z0-9_.:@%+=,/][A-Za-z0-9_.:@%+=,/-]*")
"""Words that ssh's far shell and rsync's own parser leave as they are."""


def check(site: SiteConfig, path: str) -> None:
    """Raise ConfigError where a rule is broken."""
    absolute = {
        "store.path": site.store.path,
        "store.node_path": site.node_store_path,
        "gateway.socket": site.gateway.socket,
        "gateway.state": site.gateway.state,
        "registry.certificates": site.registry.certificates,
        "node.root": site.node.root,
        "node.run": site.node.run,
        "node.zip": site.node.zip,
        "node.nid_file": site.node.nid_file,
        "jobs.state": site.jobs.state,
        "ssh.programs": site.ssh.programs,
        "jobs.nodes": site.jobs.nodes,
        **{f"systems[{n}].path": system.path for n, system in enumerate(site.systems)},
        **{f"volumes.allowed[{n}]": folder for n, folder in enumerate(site.volumes.allowed)},
        **{f"node.filesystems[{n}].source": fs.source for n, fs in enumerate(site.node.filesystems)},
        **{f"node.filesystems[{n}].target": fs.target or fs.source for n, fs in enumerate(site.node.filesystems)},
        "node.krsip": site.node.krsip,
        "node.module_path": site.node.module_path,
        **{f"node.steps[{n}].target": step.target for n, step in enumerate(site.node.steps)},
        **{f"node.steps[{n}].source": step.source for n, step in enumerate(site.node.steps) if step.kind == "bind"},
    }
    for key, value in absolute.items():
        if not value.startswith("/") or os.path.normpath(value) != value or value == "/":
            raise ConfigError(f"{path}: {key} must be a plain absolute path, not '{printable(value)}'")
    if site.gateway.format not in ("squashfs", "ext4"):
        raise ConfigError(f"{path}: gateway.format must be squashfs or ext4, not {printable(site.gateway.format)}")
    _check_systems(site.systems, path)
    _check_address(site.gateway.address, path)
    check_registries(site.registry, path)
    for source in site.alps.sources:
        if source not in ("apstat", "basil"):
            raise ConfigError(f"{path}: alps.sources may hold apstat and basil, not {printable(source)}")
    _check_steps(site, path)
    for number, filesystem in enumerate(site.node.filesystems):
        for ours in (site.node.root, site.node.run):
            if is_within(ours, filesystem.source):
                raise ConfigError(f"{path}: node.filesystems[{number}].source holds {ours}, which is ours")
    if not 1024 <= site.ssh.port <= 65535:
        raise ConfigError(f"{path}: ssh.port must be from 1024 to 65535, where users may listen, not {site.ssh.port}")
    try:
        ipaddress.IPv4Address(site.ssh.first_address)
    except ValueError as error:
        raise ConfigError(f"{path}: ssh.first_address must be an IPv4 address: {error}") from error
    for key, seconds in (
        ("node.deadline", site.node.deadline),
        ("alps.fanout_deadline", site.alps.fanout_deadline),
        ("torque.prologue_deadline", site.torque.prologue_deadline),
        ("torque.epilogue_deadline", site.torque.epilogue_deadline),
    ):
        if seconds < 1:
            raise ConfigError(f"{path}: {key} must be at least 1 second, not {seconds}")
    if site.node.deadline > site.alps.fanout_deadline or site.alps.fanout_deadline > site.torque.prologue_deadline:
        raise ConfigError(
            f"{path}: node.deadline, alps.fanout_deadline and torque.prologue_deadline must each fit in the next",
        )


def _check_steps(site: SiteConfig, path: str) -> None:
    for number, step in enumerate(site.node.steps):
        for key, value in (("when", step.when), ("kind", step.kind)):
            if value not in STEPS[key]:
                raise ConfigError(f"{path}: node.steps[{number}].{key} must be {' or '.join(STEPS[key])}")
        if (step.kind == "folder") != (step.source == ""):
            raise ConfigError(f"{path}: node.steps[{number}].source: a link and a bind have one, a folder has none")


def _check_systems(systems: tuple[SystemConfig, ...], path: str) -> None:
    for number, system in enumerate(systems):
        plain = {"name": system.name, "path": system.path}
        plain |= {key: value for key, value in (("host", system.host), ("user", system.user)) if value}
        for key, value in plain.items():
            if not _PLAIN.fullmatch(value) or (key != "path" and "/" in value):
                raise ConfigError(f"{path}: systems[{number}].{key} may not be '{printable(value)}'")
        if not system.ssh or any(not _PLAIN.fullmatch(word.lstrip("-")) for word in system.ssh):
            raise ConfigError(f"{path}: systems[{number}].ssh must be plain words, none of them empty")
        if system.name in {other.name for other in systems[:number]}:
            raise ConfigError(f"{path}: two systems are called {printable(system.name)}")


def _check_address(address: str, path: str) -> None:
    host, _, port = address.rpartition(":")
    if address and not (host and port.isdecimal() and 0 < int(port) < 65536):
        raise ConfigError(f"{path}: gateway.address must be host:port, not '{printable(address)}'")
