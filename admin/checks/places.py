"""What is in the place of each directory and file that the configuration names, and who can reach what all need."""

from __future__ import annotations

import itertools
import os
import stat
import sys
from collections.abc import Iterator, Mapping

import udi
from admin.checks.access import hindrance, intruder
from admin.checks.accounts import known_store_account
from admin.checks.check import Check, Finding, wrong
from jobs.tries import tries_directory
from outside.settings import SessionsConfig
from udi.accounts import Account
from udi.config import SiteConfig
from udiroot.rules import is_within


def checks(site: SiteConfig, directories: Mapping[str, str]) -> list[Check]:
    """Checks of the configuration; `directories` are those of the workload manager, by key."""
    return [
        Check("places", "directories and files can be where they are wanted", lambda: _places(site, directories)),
        Check("access", "users and the gateway reach the software and its configuration", lambda: _access(site)),
    ]


def _places(site: SiteConfig, directories: Mapping[str, str]) -> Iterator[Finding]:
    """What is for root only, nobody else may change."""
    for key, path in {**_directories(site), **directories}.items():
        blocking = _nearest(path)
        if not os.path.isdir(blocking):
            yield wrong(f"{key}: {blocking} is not a directory on this host")
    for key, path in _files(site).items():
        if os.path.lexists(path) and not os.path.isfile(path):
            yield wrong(f"{key}: {path} is not a regular file on this host")
    if os.path.lexists(site.gateway.socket) and not stat.S_ISSOCK(os.stat(site.gateway.socket).st_mode):
        yield wrong(f"gateway.socket: {site.gateway.socket} is not a socket on this host")
    for key in ("jobs.state", "jobs.nodes"):
        if whose := intruder(_directories(site)[key]):
            yield wrong(f"{key} must be root's alone, but {whose}", "choose another place, or chown and chmod it")
    own = {"jobs.state": site.jobs.state, "jobs.nodes": site.jobs.nodes, "its neighbour": tries_directory(site)}
    for (key, path), (other, theirs) in itertools.combinations(own.items(), 2):
        if is_within(path, theirs) or is_within(theirs, path):
            yield wrong(f"{key} and {other} must lie apart, not {path} and {theirs}")


def _directories(site: SiteConfig) -> Mapping[str, str]:
    sessions = site.table(SessionsConfig)
    return {
        "gateway.state": site.gateway.state,
        "registry.certificates": site.registry.certificates,
        "chos.map": site.chos.map,
        **({"etc.templates": site.etc.templates} if site.etc.templates else {}),
        **({"sessions.root": sessions.root, "sessions.run": sessions.run} if sessions.enabled else {}),
        "jobs.state": site.jobs.state,
        "jobs.nodes": site.jobs.nodes,
        "install.bin": site.install.bin,
        "install.share": site.install.share,
        "install.ssh": site.install.ssh,
        "install.ssh_built": site.install.ssh_built,
        "install.profile": site.install.profile,
    }


def _files(site: SiteConfig) -> Mapping[str, str]:
    install = site.install
    return {
        "install.zip": install.zip,
        "install.udi_run_built": install.udi_run_built,
        "install.roots_conf": install.roots_conf,
        "install.nodehealth_conf": install.nodehealth_conf,
        "install.nodehealth_check": install.nodehealth_check,
        **({"jobs.log": site.jobs.log} if site.jobs.log else {}),
    }


def _nearest(path: str) -> str:
    """The path itself, or the nearest above it that exists."""
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return path


def _access(site: SiteConfig) -> Iterator[Finding]:
    """Users run `udi` and the submit filter, and the store's account the gateway: all by the interpreter that runs
    this, with its packages, and with this configuration."""
    accounts: dict[str, Account | None] = {"users": None}
    if account := known_store_account(site):
        accounts["store.account"] = account
    needed = (
        (sys.executable, os.X_OK, "the interpreter of shifter-xc"),
        (os.path.dirname(os.path.abspath(udi.__file__)), os.R_OK | os.X_OK, "the package"),
        (site.path, os.R_OK, "the configuration"),
    )
    for path, wanted, what in needed:
        for who, account in accounts.items():
            if blocked := hindrance(os.path.abspath(path), account, wanted):
                whom = who if account is None else f"{who} {account.name}"
                yield wrong(f"{what}, {path}, cannot be used by {whom}: {blocked}", "install it elsewhere")
                break
