"""What uninstalling leaves on purpose: data of users and of the site, and what `udi-admin install` did not place."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator

from clusters.settings import ClustersConfig
from outside.settings import SessionsConfig
from slurm_hooks.settings import SlurmConfig
from udi.accounts import Account, account_of, account_of_uid
from udi.config import SiteConfig
from udiroot.errors import NotFound
from udiroot.rules import is_within

BUNDLE = "/opt/udi"
"""Below which `install.sh` of a bundle puts its part, and pages have the virtual environment."""


def left_on_purpose(site: SiteConfig, config_path: str, prefix: str) -> Iterator[tuple[str, str]]:
    """Each path that is there, below the directory `prefix`, and what it is. Raises ConfigError."""
    states = os.path.dirname(site.jobs.state)
    for path, what in _places(site, config_path, states):
        is_told = path != states and is_within(path, states) and os.path.lexists(prefix + states)
        if path and os.path.lexists(prefix + path) and not is_told:
            yield prefix + path, what
    if os.path.isfile(prefix + site.install.zip) and not os.path.islink(prefix + site.install.zip):
        yield prefix + site.install.zip, "node software that install did not place; install.sh or a package did"
    for name, what in _OF_BUNDLE:
        for path in sorted(glob.glob(f"{glob.escape(prefix)}{BUNDLE}/{name}")):
            yield path, what
    account = None if prefix else _account(site.store.account)
    if account and account.uid:
        yield f"account {account.name}", f"uid {account.uid}, which owns the store and the gateway's state"


_OF_BUNDLE = (
    ("venv", "the Python packages, which this program runs from; installed by hand or by install.sh"),
    ("venv-*", "the same, of one version"),
    ("python", "the interpreter of a bundle"),
    ("python-*", "the same, of one version"),
    ("lib", "programs as they were built: udi-run, the private sshd, Slurm's plugin"),
)


def _places(site: SiteConfig, config_path: str, states: str) -> Iterator[tuple[str, str]]:
    yield site.store.path, f"the image store, of account {site.store.account}"
    yield site.gateway.state, "the gateway's state"
    yield site.gateway.spool, "the gateway's layers and work in progress"
    yield site.gateway.socket, "the socket of a gateway that runs, or was killed"
    yield states, "states of jobs and nodes"
    yield site.jobs.nodes, "why nodes are out of service"
    if site.machine == ClustersConfig.NAME:
        yield site.table(ClustersConfig).out_of_service, "which nodes are out of service"
    yield site.jobs.log, "the hooks' log"
    yield site.jobs.reports, "what nodes reported of failed steps"
    yield site.node.root, "where nodes have roots of jobs; empty where none is left"
    yield site.node.run, "records of those roots; empty where none is left"
    if site.workload_manager == SlurmConfig.NAME:
        yield site.table(SlurmConfig).notes, "notes for Slurm's plugin; empty where no job is here"
    sessions = site.table(SessionsConfig)
    yield sessions.root, "where sessions have their roots; empty where none is left"
    yield sessions.run, "records of those roots; empty where none is left"
    yield config_path, "the configuration"


def _account(text: str) -> Account | None:
    """That of a name or a number; None where this host has none."""
    try:
        return account_of_uid(int(text)) if text.isascii() and text.isdecimal() else account_of(text)
    except NotFound:
        return None
