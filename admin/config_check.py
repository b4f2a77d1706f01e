"""What is wrong with a configuration and with what it names on this host: everything at once, each with its key.

Reading the file knows types and constraints. Here is the rest: the tables of all machines and workload managers,
deadlines between each other and within the limits of others, accounts, owners, programs, and who can reach them.
"""

from __future__ import annotations

import functools
import itertools
import os
import pwd
import stat
import sys
from collections.abc import Callable, Iterator, Mapping

import udi
from admin.access import hindrance, intruder
from admin.machines import all_tables, machine_of
from admin.managers import manager_of
from admin.sitefiles import site_files
from gateway.image.formats.squashfs import parse_compression
from gateway.sources.verifying import Verifier
from gateway.wire.munge import Munge
from jobs.tries import tries_directory
from udi.accounts import Account, account_of, account_of_uid, group_id, store_owner
from udi.chosmap import map_and_errors
from udi.config import SiteConfig, errors_in, parse, trusted_text
from udi.keyring import read_keys
from udi.oserrors import reason
from udi.planning import node_templates
from udi.platform import Machine
from udi.signatures import SignatureRule
from udiroot.errors import ConfigError, NotFound, UdiError, printable
from udiroot.rules import is_within


def errors_of(path: str) -> list[UdiError]:
    """Everything that is wrong with the configuration at `path`, or with what it names on this host."""
    try:
        text = trusted_text(path)
        found: list[UdiError] = [*errors_in(text, path, all_tables())]
        if found:
            return found
        site = parse(text, path)
        machine = machine_of(site)
        manager_of(site)
    except UdiError as error:
        return [error]
    for check in _CHECKS:
        found += check(site, machine)
    return found


def _raised(call: Callable[[], object]) -> Iterator[UdiError]:
    try:
        call()
    except UdiError as error:
        yield error


def _check_manager(site: SiteConfig, machine: Machine) -> Iterator[UdiError]:
    yield from manager_of(site).errors(machine)


def _check_store(site: SiteConfig, machine: Machine) -> Iterator[UdiError]:
    """The store, and its directories where they exist, are the account's, and nobody else may write them."""
    try:
        uid, _ = store_owner(site.store.account)
    except ConfigError as error:
        yield error
        return
    if uid == 0 and site.store.account != "0":
        yield _error(site, "store.account must not be root", "give the store an account of its own")
    if not os.path.isdir(site.store.path):
        yield _error(site, f"store.path: {site.store.path} is not a directory on this host")
        return
    for path in (site.store.path, *(f"{site.store.path}/{name}" for name in ("images", "refs", "plans"))):
        try:
            status = os.stat(path)
        except FileNotFoundError:
            continue  # the gateway makes it
        except OSError as error:
            yield _error(site, f"store.path: {path}: {reason(error)}")
            continue
        if status.st_uid != uid:
            yield _error(
                site,
                f"store.path: {path} is owned by uid {status.st_uid}, must be owned by store.account, uid {uid}",
                f"chown {uid} {path}",
            )
        if status.st_mode & 0o022:
            yield _error(
                site,
                f"store.path: {path} of mode {stat.S_IMODE(status.st_mode):04o} may be written by others",
                f"chmod go-w {path}",
            )


def _check_gateway(site: SiteConfig, machine: Machine) -> Iterator[UdiError]:
    if site.gateway.format == "squashfs":
        for error in _raised(lambda: parse_compression(site.gateway.compression)):
            yield _error(site, f"gateway.compression: {error.message}", error.hint)
    if site.gateway.address:
        for error in _raised(lambda: Munge(site.gateway.munge).encode(b"", os.geteuid())):
            yield _error(site, f"gateway.address needs MUNGE: {error.message}", error.hint)
    names = [host.name for host in site.registry.hosts]
    if site.registry.default not in names:
        yield _error(site, f"registry.default must be one of registry.hosts, not '{printable(site.registry.default)}'")
    for name in site.gateway.publishers:
        try:
            pwd.getpwnam(name)
        except KeyError:
            yield _error(site, f"gateway.publishers: no account '{printable(name)}' on this host")


def _check_modules(site: SiteConfig, machine: Machine) -> Iterator[UdiError]:
    for name, module in site.modules.items():
        for user in module.users:
            for error in _raised(lambda user=user: account_of(user)):  # type: ignore[misc]
                yield _error(site, f"modules.{name}.users: {error.message}")
        for group in module.groups:
            if group_id(group) < 0:
                yield _error(site, f"modules.{name}.groups: no group '{printable(group)}' on this host")


def _check_signatures(site: SiteConfig, machine: Machine) -> Iterator[UdiError]:
    """The keys of each rule can be read, also by the store's account, and are keys by which images are signed."""
    for number, rule in enumerate(site.signatures.rules):
        if not os.path.isdir(site.gateway.state) and not any(map(os.path.lexists, rule.keys)):
            continue  # the gateway works on another host
        key = f"signatures.rules[{number}].keys"
        for error in _raised(functools.partial(_read_verifier, rule)):
            yield _error(site, f"{key}: {error.message}", error.hint)
        for _ in _raised(lambda: _store_account(site)):
            return  # reported with the store
        account = _store_account(site)
        for path in filter(os.path.exists, rule.keys):
            wanted = os.R_OK | os.X_OK if os.path.isdir(path) else os.R_OK
            if blocked := hindrance(path, account, wanted):
                yield _error(site, f"{key}: {path} cannot be read by store.account {account.name}: {blocked}")


def _check_audit(site: SiteConfig, machine: Machine) -> Iterator[UdiError]:
    """The gateway can tell when the scanner's feed has changed."""
    for _ in _raised(lambda: _store_account(site)):
        return  # reported with the store
    account = _store_account(site)
    for path in site.audit.feed:
        if not os.path.isdir(site.gateway.state) and not os.path.lexists(path):
            continue  # the gateway works on another host
        if not os.path.exists(path):
            yield _error(site, f"audit.feed: {path} does not exist", "an empty directory will do until it is filled")
        elif blocked := hindrance(path, account, os.R_OK | os.X_OK if os.path.isdir(path) else os.R_OK):
            yield _error(site, f"audit.feed: {path} cannot be read by store.account {account.name}: {blocked}")


def _read_verifier(rule: SignatureRule) -> None:
    Verifier(read_keys(rule.keys))


def _check_chos(site: SiteConfig, machine: Machine) -> Iterator[UdiError]:
    yield from map_and_errors(site)[1]


def _check_metrics(site: SiteConfig, machine: Machine) -> Iterator[UdiError]:
    """The directory is node_exporter's, so it is not ours to make."""
    path = site.metrics.directory
    if not path:
        return
    if not os.path.isdir(path):
        yield _error(site, f"metrics.directory: {path} is not a directory on this host")
    elif os.stat(path).st_mode & stat.S_IWOTH:
        yield _error(site, f"metrics.directory: anybody may write {path}", f"chmod o-w {path}")


def _check_files(site: SiteConfig, machine: Machine) -> Iterator[UdiError]:
    yield from _raised(lambda: node_templates(site))
    yield from _raised(lambda: site_files(site, machine, site.path))


def _check_places(site: SiteConfig, machine: Machine) -> Iterator[UdiError]:
    """What is in the place of a directory or file, where anything is; what is for root only, nobody else may change."""
    for key, path in _directories(site).items():
        blocking = _nearest(path)
        if not os.path.isdir(blocking):
            yield _error(site, f"{key}: {blocking} is not a directory on this host")
    for key, path in _files(site).items():
        if os.path.lexists(path) and not os.path.isfile(path):
            yield _error(site, f"{key}: {path} is not a regular file on this host")
    if os.path.lexists(site.gateway.socket) and not stat.S_ISSOCK(os.stat(site.gateway.socket).st_mode):
        yield _error(site, f"gateway.socket: {site.gateway.socket} is not a socket on this host")
    for key in ("jobs.state", "jobs.nodes"):
        if whose := intruder(_directories(site)[key]):
            yield _error(
                site, f"{key} must be root's alone, but {whose}", "choose another place, or chown and chmod it"
            )
    own = {"jobs.state": site.jobs.state, "jobs.nodes": site.jobs.nodes, "its neighbour": tries_directory(site)}
    for (key, path), (other, theirs) in itertools.combinations(own.items(), 2):
        if is_within(path, theirs) or is_within(theirs, path):
            yield _error(site, f"{key} and {other} must lie apart, not {path} and {theirs}")


def _directories(site: SiteConfig) -> Mapping[str, str]:
    return {
        "gateway.state": site.gateway.state,
        "registry.certificates": site.registry.certificates,
        "chos.map": site.chos.map,
        **({"etc.templates": site.etc.templates} if site.etc.templates else {}),
        "jobs.state": site.jobs.state,
        "jobs.nodes": site.jobs.nodes,
        "install.bin": site.install.bin,
        "install.ssh": site.install.ssh,
        "install.ssh_built": site.install.ssh_built,
        "install.profile": site.install.profile,
        **manager_of(site).directories(),
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


def _check_programs(site: SiteConfig, machine: Machine) -> Iterator[UdiError]:
    """Programs are executable, and root runs none that others can change. The gateway's own are needed where it works,
    by the store's account."""
    for key, program in _programs(site, machine).items():
        if not os.path.isfile(program) or not os.access(program, os.X_OK):
            yield _error(site, f"{key}: {program} is not an executable program on this host")
        elif whose := intruder(program):
            yield _error(site, f"{key}: root runs {program}, but {whose}", "only root may be able to change it")
    for key, program in _programs_of_gateway(site).items():
        if not os.path.isdir(site.gateway.state) and not os.path.lexists(program):
            continue  # the gateway works on another host
        for _ in _raised(lambda: _store_account(site)):
            return  # reported with the store
        account = _store_account(site)
        if not os.path.isfile(program) or not os.access(program, os.X_OK):
            yield _error(site, f"{key}: {program} is not an executable program on this host")
        elif blocked := hindrance(program, account, os.X_OK):
            yield _error(site, f"{key}: {program} cannot be used by store.account {account.name}: {blocked}")


def _programs_of_gateway(site: SiteConfig) -> Mapping[str, str]:
    gateway = site.gateway
    packers = {"gateway.tar2sqfs": gateway.tar2sqfs, "gateway.rdsquashfs": gateway.rdsquashfs}
    others = {f"systems[{number}].rsync": system.rsync for number, system in enumerate(site.systems)}
    others |= {"audit.command": site.audit.command[0]} if site.audit.is_on else {}
    return {**({"gateway.mke2fs": gateway.mke2fs} if gateway.format == "ext4" else packers), **others}


def _check_access(site: SiteConfig, machine: Machine) -> Iterator[UdiError]:
    """Users run `udi` and the submit filter, and the store's account the gateway: all by the interpreter that runs
    this, with its packages, and with this configuration."""
    accounts: dict[str, Account | None] = {"users": None}
    for _ in _raised(lambda: accounts.update({"store.account": _store_account(site)})):
        pass  # reported with the store
    needed = (
        (sys.executable, os.X_OK, "the interpreter of shifter-xc"),
        (os.path.dirname(os.path.abspath(udi.__file__)), os.R_OK | os.X_OK, "the package"),
        (site.path, os.R_OK, "the configuration"),
    )
    for path, wanted, what in needed:
        for who, account in accounts.items():
            if blocked := hindrance(os.path.abspath(path), account, wanted):
                whom = who if account is None else f"{who} {account.name}"
                yield _error(site, f"{what}, {path}, cannot be used by {whom}: {blocked}", "install it elsewhere")
                break


def _store_account(site: SiteConfig) -> Account:
    uid, gid = store_owner(site.store.account)
    try:
        return account_of_uid(uid)
    except NotFound:
        return Account(str(uid), uid, gid, (gid,), "/", "/bin/sh")


def _programs(site: SiteConfig, machine: Machine) -> Mapping[str, str]:
    manager = manager_of(site)
    return {
        **(machine.programs() if manager.has_machine else {}),
        **manager.programs(),
        "install.python": site.install.python,
        **({"install.ssh": f"{site.install.ssh}/sshkey"} if site.ssh.enabled else {}),
    }


def _error(site: SiteConfig, message: str, hint: str = "") -> ConfigError:
    return ConfigError(f"{site.path}: {message}", hint)


_CHECKS = (
    _check_manager,
    _check_store,
    _check_gateway,
    _check_modules,
    _check_signatures,
    _check_chos,
    _check_audit,
    _check_files,
    _check_metrics,
    _check_places,
    _check_programs,
    _check_access,
)
