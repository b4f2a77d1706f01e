"""What the gateway does on other hosts: conversions that `gateway.worker_prefix` starts, and replica systems.

Both are tried as the store's account, whose keys and allocations they use, and where the gateway works.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import shlex
import sys
from collections.abc import Iterator

from admin.checks.access import hindrance
from admin.checks.accounts import gateway_works_here, known_store_account
from admin.checks.as_account import as_account
from admin.checks.check import Check, Finding, warning, wrong
from udi.accounts import Account
from udi.command import Late, run
from udi.config import SiteConfig
from udiroot.errors import UdiError, printable

_WORKER_SECONDS = 30.0
"""A batch system may take that long to find a place for a short job."""
_SSH_SECONDS = 15.0
_MORE = 5.0
"""What the process that starts such a command needs beside it."""
_TEST = "/usr/bin/test"
_SSH_FAILED = 255
_STARTED, _INTERPRETER, _LATE = "udi-worker-started", "udi-interpreter-there", "late"
_MOST = 300


def trials(site: SiteConfig) -> list[Check]:
    """Where the configuration has such hosts, and the gateway works here."""
    account = known_store_account(site)
    if account is None or not gateway_works_here(site):
        return []
    found = []
    if site.gateway.worker_prefix:
        prefix = site.gateway.worker_prefix[0]
        proves = f"{prefix} starts programs, which see {site.gateway.spool}"
        found.append(Check("gateway.worker", proves, lambda: _worker(site, account)))
    if site.systems:
        names = ", ".join(system.name for system in site.systems)
        found.append(Check("systems.reach", f"{account.name} reaches {names}", lambda: _systems(site, account)))
    return found


def _worker(site: SiteConfig, account: Account) -> Iterator[Finding]:
    """A shell is started as a worker is, and says what it sees; a banner may be among its lines."""
    prefix, spool = site.gateway.worker_prefix, site.gateway.spool
    if not os.access(prefix[0], os.X_OK):
        return  # reported with the programs
    sign = secrets.token_hex(16)
    try:
        said = as_account(
            account.uid,
            account.gid,
            lambda: _from_worker(prefix, spool, sign),
            _WORKER_SECONDS + _MORE,
            groups=account.groups,
        ).splitlines()
    except UdiError as error:
        yield wrong(f"gateway.worker_prefix: {' '.join(prefix)}: {error.message}", "no image can be converted with it")
        return
    if said == [_LATE]:
        yield warning(
            f"gateway.worker_prefix: {' '.join(prefix)} started nothing within {_WORKER_SECONDS:.0f} seconds",
            "are its hosts busy? Conversions wait as long",
        )
        return
    if _STARTED not in said:
        yield wrong(f"gateway.worker_prefix: {' '.join(prefix)} runs no program, or loses what it prints")
        return
    if _INTERPRETER not in said:
        yield wrong(
            f"gateway.worker_prefix: {sys.executable} is not on the host that it starts programs on",
            "install the gateway's version there, at the same path",
        )
    if sign not in said:
        yield wrong(
            f"gateway.spool: {spool} is not seen on the host that gateway.worker_prefix starts programs on",
            "put it on a file system that both mount at that path, and that the store's account may use there",
        )


def _from_worker(prefix: tuple[str, ...], spool: str, sign: str) -> str:
    """The lines that a shell prints there; raises UpstreamFailed where it does not start, OSError."""
    os.chdir("/")
    path = f"{spool}/.check-{sign}"
    with open(path, "x", encoding="ascii") as stream:
        stream.write(f"{sign}\n")
    script = f"echo {_STARTED}\n[ -x {shlex.quote(sys.executable)} ] && echo {_INTERPRETER}\ncat {shlex.quote(path)}\n"
    try:
        done = run([*prefix, "/bin/sh"], seconds=_WORKER_SECONDS, stdin=script.encode())
    except Late:
        return _LATE
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    known = [line for line in lines if line in (_STARTED, _INTERPRETER, sign)]
    if _STARTED not in known:
        done.require_success()
    return "\n".join(known)


def _systems(site: SiteConfig, account: Account) -> Iterator[Finding]:
    for number, system in enumerate(site.systems):
        remote = f"{system.user}@{system.host}" if system.user else system.host
        reach = (
            functools.partial(_reach, (*system.ssh, "--", remote), system.path)
            if system.host
            else functools.partial(_here, system.path, account)
        )
        if system.host and not os.access(system.ssh[0], os.X_OK):
            continue  # reported with the programs
        try:
            why = as_account(account.uid, account.gid, reach, 2 * _SSH_SECONDS + _MORE, groups=account.groups)
        except UdiError as error:
            why = error.message
        if why:
            yield wrong(
                f"systems[{number}], {system.name}: {why}",
                f"{account.name} copies each new image there: ssh keys and host keys are that account's",
            )


def _reach(ssh: tuple[str, ...], store: str) -> str:
    """Why it is out of reach; empty where it is not. A store that is not there is made by the first transfer.

    Raises UpstreamFailed, Late.
    """
    os.chdir("/")
    done = run([*ssh, _TEST, "-w", store], seconds=_SSH_SECONDS)
    if done.exit_code == 1 and run([*ssh, _TEST, "-e", store], seconds=_SSH_SECONDS).exit_code == 0:
        return f"{store} on {ssh[-1]} cannot be written by the account there"
    if done.exit_code not in (0, 1):
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason given"]
        what = "ssh" if done.exit_code == _SSH_FAILED else _TEST
        return f"{what} to {ssh[-1]} failed: {printable(lines[-1], _MOST)}"
    return ""


def _here(store: str, account: Account) -> str:
    """The same of a directory of this machine, or the one that it would be made in."""
    path = store
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    if not os.access(path, os.W_OK | os.X_OK):
        why = hindrance(path, account, os.W_OK | os.X_OK) or "permission denied, or mounted read-only"
        return f"{path} cannot be written by {account.name}: {why}"
    return ""
