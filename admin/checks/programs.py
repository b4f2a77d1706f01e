"""Programs: who can run and change them, and that each is of a version that is known to do."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from admin.checks.access import hindrance, intruder
from admin.checks.accounts import gateway_works_here, known_store_account
from admin.checks.check import Check, Finding, fine, warning, wrong
from gateway.image.formats.squashfs import packers
from udi.command import run
from udi.config import SiteConfig
from udiroot.errors import UdiError

_SECONDS = 10.0
_VERSION = re.compile(rb"(?<![A-Za-z0-9.])v?([0-9]{1,4}(?:\.[0-9]{1,6}){1,3})")


@dataclass(frozen=True)
class Asked:
    """How a program says its version, and the oldest that will do."""

    key: str
    program: str
    words: tuple[str, ...]
    least: tuple[int, ...]
    todo: str = ""


def checks(site: SiteConfig, programs: Mapping[str, str]) -> list[Check]:
    """Checks of the configuration; `programs` are those of the machine and the workload manager, by key."""
    ours = {
        **programs,
        "install.python": site.install.python,
        **({"install.ssh": f"{site.install.ssh}/sshkey"} if site.ssh.enabled else {}),
    }
    return [
        Check("programs", f"{len(ours)} programs of this host, which only root can change", lambda: _root_runs(ours)),
        Check("gateway.programs", "the gateway's account can run its programs", lambda: _gateway_runs(site)),
    ]


def trials(site: SiteConfig) -> list[Check]:
    """The versions of programs that are in use whatever starts jobs."""
    return versions(_python(site), *(_gateways(site) if gateway_works_here(site) else ()))


def versions(*asked: Asked) -> list[Check]:
    """One for each program that says its version; one that is not there, `checks` reports."""
    return [
        Check(f"version.{each.key.rpartition('.')[2]}", each.program, functools.partial(_version, each))
        for each in asked
        if os.access(each.program, os.X_OK) and os.path.isfile(each.program)
    ]


def _version(asked: Asked) -> Iterator[Finding]:
    """Its version, whatever it exits with: some print it with their usage, or fail for want of a daemon."""
    try:
        done = run([asked.program, *asked.words], seconds=_SECONDS)
    except UdiError as error:
        yield wrong(f"{asked.key}: its version cannot be asked: {error.message}", asked.todo)
        return
    found = _VERSION.search(done.stdout) or _VERSION.search(done.stderr)
    if found is None:
        yield warning(f"{asked.key}: {asked.program} does not say its version", "is it the program that it should be?")
        return
    text = found[1].decode("ascii")
    if tuple(map(int, text.split("."))) < asked.least:
        least = ".".join(map(str, asked.least))
        yield wrong(f"{asked.key}: {asked.program} is of version {text}, must be {least} or newer", asked.todo)
    else:
        yield fine(f"{asked.program} is of version {text}")


def _root_runs(programs: Mapping[str, str]) -> Iterator[Finding]:
    """Programs are executable, and root runs none that others can change."""
    for key, program in programs.items():
        if not os.path.isfile(program) or not os.access(program, os.X_OK):
            yield wrong(f"{key}: {program} is not an executable program on this host")
        elif whose := intruder(program):
            yield wrong(f"{key}: root runs {program}, but {whose}", "only root may be able to change it")


def _gateway_runs(site: SiteConfig) -> Iterator[Finding]:
    """They are needed where the gateway works, by the store's account."""
    account = known_store_account(site)
    if account is None:
        return
    for key, program in _programs_of_gateway(site).items():
        if not gateway_works_here(site) and not os.path.lexists(program):
            continue  # the gateway works on another host
        if not os.path.isfile(program) or not os.access(program, os.X_OK):
            yield wrong(f"{key}: {program} is not an executable program on this host")
        elif blocked := hindrance(program, account, os.X_OK):
            yield wrong(f"{key}: {program} cannot be used by store.account {account.name}: {blocked}")


def _programs_of_gateway(site: SiteConfig) -> Mapping[str, str]:
    gateway = site.gateway
    makers = {"ext4": {"gateway.mke2fs": gateway.mke2fs}, "squashfs": packers(gateway)}
    others = {f"systems[{number}].rsync": system.rsync for number, system in enumerate(site.systems)}
    others |= {"gateway.worker_prefix": gateway.worker_prefix[0]} if gateway.worker_prefix else {}
    others |= {"audit.command": site.audit.command[0]} if site.audit.is_on else {}
    return {**makers.get(gateway.format, {}), **others}


def _python(site: SiteConfig) -> Asked:
    return Asked("install.python", site.install.python, ("--version",), (3, 11), "see docs/install.md")


def _gateways(site: SiteConfig) -> Iterator[Asked]:
    gateway = site.gateway
    kinds = {gateway.format, *gateway.user_formats}
    if "squashfs" in kinds:
        for key, program in packers(gateway).items():
            yield Asked(key, program, ("--version",), (1, 0), "install squashfs-tools-ng")
    if "ext4" in kinds:
        yield Asked("gateway.mke2fs", gateway.mke2fs, ("-V",), (1, 43), "install e2fsprogs")
    yield Asked("gateway.qemu_img", gateway.qemu_img, ("--version",), (2, 0), "install qemu-utils")
    for number, system in enumerate(site.systems):
        yield Asked(f"systems[{number}].rsync", system.rsync, ("--version",), (3, 0), "install rsync")
