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
from gateway.image.formats.ext4 import checker
from gateway.image.formats.squashfs import packers
from udi.command import run
from udi.config import SiteConfig
from udiroot.errors import UdiError

_SECONDS = 10.0
_VERSION = re.compile(rb"(?<![A-Za-z0-9.])v?([0-9]{1,4}(?:\.[0-9]{1,6}){1,3})")

_QEMU, _SQUASHFS, _EXT4 = "install qemu-utils", "install squashfs-tools-ng", "install e2fsprogs"
_OF_PUBLISHERS = ("squashfs", "ext4")
"""Formats that need programs, each of which publishers may ask for."""
MUNGE = "/usr/bin/munge"
"""MUNGE's own program, which comes with libmunge, and has no key in the configuration."""


@dataclass(frozen=True)
class Some:
    """A program that some images need, and what becomes of these without it."""

    key: str
    program: str
    without: str
    todo: str


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
        Check("gateway.images", "programs that only some images need are there", lambda: _some_images(site)),
        Check("volumes.caches", "file systems of per-node caches can be made", lambda: _caches(site)),
    ]


def trials(site: SiteConfig) -> list[Check]:
    """The versions of programs that are in use whatever starts jobs."""
    return versions(_python(site), *(_gateways(site) if gateway_works_here(site) else ()))


def versions(*asked: Asked) -> list[Check]:
    """One for each program that says its version. One that is not there has a row of its own where it is needed."""
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
    for key, program in _programs_of_gateway(site).items():
        if not gateway_works_here(site) and not os.path.lexists(program):
            continue  # the gateway works on another host
        if words := _unusable(site, program):
            yield wrong(f"{key}: {words}")


def _some_images(site: SiteConfig) -> Iterator[Finding]:
    """Where the gateway works. Without them all other images are converted, and none of those."""
    if not gateway_works_here(site):
        return
    for some in _programs_of_some(site):
        if words := _unusable(site, some.program):
            yield warning(f"{some.key}: {words}: {some.without}", some.todo)


def _caches(site: SiteConfig) -> Iterator[Finding]:
    """Made by the hooks, so where the directory is that they share."""
    program = site.gateway.mke2fs
    if not site.volumes.max_per_node_bytes:
        yield fine("not wanted: volumes.max_per_node_bytes is 0")
    elif not os.path.isdir(os.path.dirname(site.jobs.state)):
        yield fine(f"no hook has run on this host: there is no {os.path.dirname(site.jobs.state)}")
    elif not os.path.isfile(program) or not os.access(program, os.X_OK):
        yield warning(
            f"gateway.mke2fs: {program} is not an executable program on this host: no job with a per-node cache starts"
            " from it",
            f"{_EXT4}, or set volumes.max_per_node_bytes to 0",
        )


def _unusable(site: SiteConfig, program: str) -> str:
    """Why the store's account cannot run a program here; empty where it can, or where there is no such account."""
    if not os.path.isfile(program) or not os.access(program, os.X_OK):
        return f"{program} is not an executable program on this host"
    account = known_store_account(site)
    blocked = hindrance(program, account, os.X_OK) if account else ""
    return f"{program} cannot be used by store.account {site.store.account}: {blocked}" if blocked else ""


def _programs_of_some(site: SiteConfig) -> Iterator[Some]:
    gateway = site.gateway
    yield Some("gateway.qemu_img", gateway.qemu_img, "no disk of a virtual machine becomes an image", _QEMU)
    yield Some("gateway.sqfs2tar", gateway.sqfs2tar, "no squashfs file becomes an image", _SQUASHFS)
    made = {*gateway.user_formats, *(_OF_PUBLISHERS if gateway.publishers else ())} - {gateway.format}
    if "ext4" in made:
        for key, program in _makers_of_ext4(site).items():
            yield Some(key, program, "nobody gets an image as ext4", _EXT4)
    for key, program in packers(gateway).items() if "squashfs" in made else ():
        yield Some(key, program, "nobody gets an image as squashfs", _SQUASHFS)


def _programs_of_gateway(site: SiteConfig) -> Mapping[str, str]:
    gateway = site.gateway
    makers = {"ext4": _makers_of_ext4(site), "squashfs": packers(gateway)}
    others = {f"systems[{number}].rsync": system.rsync for number, system in enumerate(site.systems)}
    others |= {f"systems[{number}].ssh": system.ssh[0] for number, system in enumerate(site.systems) if system.host}
    others |= {"gateway.worker_prefix": gateway.worker_prefix[0]} if gateway.worker_prefix else {}
    others |= {"audit.command": site.audit.command[0]} if site.audit.is_on else {}
    return {**makers.get(gateway.format, {}), **others}


def _makers_of_ext4(site: SiteConfig) -> Mapping[str, str]:
    return {"gateway.mke2fs": site.gateway.mke2fs, "e2fsck beside gateway.mke2fs": checker(site.gateway)}


def _python(site: SiteConfig) -> Asked:
    return Asked("install.python", site.install.python, ("--version",), (3, 11), "see docs/install.md")


def _gateways(site: SiteConfig) -> Iterator[Asked]:
    gateway = site.gateway
    kinds = {gateway.format, *gateway.user_formats}
    if "squashfs" in kinds:
        for key, program in packers(gateway).items():
            yield Asked(key, program, ("--version",), (1, 0), _SQUASHFS)
    if "ext4" in kinds:
        yield Asked("gateway.mke2fs", gateway.mke2fs, ("-V",), (1, 43), _EXT4)
    yield Asked("gateway.qemu_img", gateway.qemu_img, ("--version",), (2, 0), _QEMU)
    yield Asked("gateway.sqfs2tar", gateway.sqfs2tar, ("--version",), (1, 0), _SQUASHFS)
    if gateway.address:
        yield Asked("gateway.munge", MUNGE, ("--version",), (0, 5), "install munge")
    for number, system in enumerate(site.systems):
        yield Asked(f"systems[{number}].rsync", system.rsync, ("--version",), (3, 0), "install rsync")
        if system.host and os.path.basename(system.ssh[0]) == "ssh":  # what runs it for a site has its own versions
            yield Asked(f"systems[{number}].ssh", system.ssh[0], ("-V",), (6, 0), "install OpenSSH's client")
