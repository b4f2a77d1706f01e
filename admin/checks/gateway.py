"""The gateway: settings that only it uses, MUNGE, and that it answers, as users and root will ask it."""

from __future__ import annotations

import dataclasses
import functools
import os
import pwd
import socket
from collections.abc import Iterator

from admin.checks.accounts import store_account
from admin.checks.as_account import as_account
from admin.checks.check import Check, Finding, fine, raised, warning, wrong
from gateway.client import client
from gateway.image.formats.squashfs import parse_compression
from gateway.wire.messages import ListImages
from gateway.wire.munge import Munge
from udi.accounts import store_owner
from udi.config import SiteConfig
from udiroot.errors import UdiError, UpstreamFailed, printable

_SECONDS = 10.0
_SCHEME = "unix://"
_NOBODY = 65534
"""Neither root nor the store's account."""


def checks(site: SiteConfig) -> list[Check]:
    """Checks of the configuration."""
    found = [
        Check("gateway.settings", "compression, registries and publishers are known here", lambda: _settings(site))
    ]
    if site.gateway.address:
        found.append(Check("gateway.munge", "MUNGE makes and reads credentials", lambda: _munge(site)))
    if site.gateway.spool and os.path.isdir(site.gateway.state):
        found.append(Check("gateway.spool", "only the gateway reads what users hand over", lambda: _spool(site)))
    return found


def trials(site: SiteConfig) -> list[Check]:
    """Requests, on the socket where this host has it and by the address; and the gateway's own directories."""
    found = [
        Check("gateway.state", f"{site.store.account} works in {site.gateway.state}", lambda: _own_places(site)),
        Check("gateway.socket", f"answers at {site.gateway.socket}", lambda: _on_socket(site)),
    ]
    if site.gateway.daemon and os.path.isdir(site.gateway.state):
        daemon = site.gateway.daemon.removeprefix(_SCHEME)
        found.append(Check("gateway.daemon", f"takes connections at {daemon}", lambda: _daemon(site, daemon)))
    if site.gateway.address:
        found.append(Check("gateway.address", f"answers at {site.gateway.address}", lambda: _by_address(site)))
    return found


def _settings(site: SiteConfig) -> Iterator[Finding]:
    if site.gateway.format == "squashfs":
        yield from raised(lambda: parse_compression(site.gateway.compression), "gateway.compression")
    names = [host.name for host in site.registry.hosts]
    if site.registry.default not in names:
        yield wrong(f"registry.default must be one of registry.hosts, not '{printable(site.registry.default)}'")
    for name in site.gateway.publishers:
        try:
            pwd.getpwnam(name)
        except KeyError:
            yield wrong(f"gateway.publishers: no account '{printable(name)}' on this host")


def _spool(site: SiteConfig) -> Iterator[Finding]:
    path = site.gateway.spool
    if not os.path.isdir(path):
        yield wrong(f"gateway.spool: {path} is not a directory on this host")
        return
    status, (uid, _) = os.stat(path), store_owner(site.store.account)
    if status.st_uid != uid or status.st_mode & 0o077:
        yield wrong(f"gateway.spool: {path} must be store.account's alone", f"chown {uid} {path}; chmod 0700 {path}")


def _munge(site: SiteConfig) -> Iterator[Finding]:
    """A credential for ourselves, made and read back: munged runs, and has its key."""
    munge = Munge(site.gateway.munge)

    def there_and_back() -> None:
        decoded = munge.decode(munge.encode(b"check", os.geteuid()))
        if (decoded.uid, decoded.text) != (os.geteuid(), b"check"):
            raise UpstreamFailed(f"munge: a credential of uid {os.geteuid()} came back as one of uid {decoded.uid}")

    yield from raised(there_and_back, "gateway.address needs MUNGE")


def _own_places(site: SiteConfig) -> Iterator[Finding]:
    """Where the gateway works, as its state shows."""
    uid, gid = store_owner(site.store.account)
    there = {"gateway.state": site.gateway.state} | (
        {"gateway.spool": site.gateway.spool} if site.gateway.spool else {}
    )
    if not os.path.isdir(site.gateway.state):
        yield fine(f"there is no {site.gateway.state}: the gateway works on another host")
        return
    for key, path in there.items():
        try:
            as_account(uid, gid, functools.partial(_require_writable, path), _SECONDS)
        except UdiError as error:
            yield wrong(
                f"{key}: {site.store.account} cannot write to {path}: {error.message}", f"chown {uid}:{gid} {path}"
            )


def _require_writable(path: str) -> str:
    if os.statvfs(path).f_flag & os.ST_RDONLY or not os.access(path, os.W_OK | os.X_OK):
        raise UpstreamFailed("permission denied, or mounted read-only")
    return ""


def _on_socket(site: SiteConfig) -> Iterator[Finding]:
    """A socket is only where the gateway works, which its state shows, or where something listens."""
    if not os.path.lexists(site.gateway.socket):
        if os.path.isdir(site.gateway.state):
            yield wrong(
                f"gateway.socket: nothing is at {site.gateway.socket}, but the gateway works on this host"
                f" ({site.gateway.state})",
                "start it: udi-gateway serve",
            )
        else:
            yield fine(f"none at {site.gateway.socket}: the gateway works on another host")
        return
    local = dataclasses.replace(site, gateway=dataclasses.replace(site.gateway, address=""))
    yield from _answers(local, f"gateway.socket: {site.gateway.socket}")


def _by_address(site: SiteConfig) -> Iterator[Finding]:
    away = f"{site.gateway.socket}.not-used"
    remote = dataclasses.replace(site, gateway=dataclasses.replace(site.gateway, socket=away))
    yield from _answers(remote, f"gateway.address: {site.gateway.address}")


def _daemon(site: SiteConfig, path: str) -> Iterator[Finding]:
    """As the gateway connects, with all groups of its account: one of them may be the socket's."""
    account = store_account(site)

    def connect() -> str:
        with socket.socket(socket.AF_UNIX) as one:
            one.settimeout(_SECONDS)
            one.connect(path)
        return ""

    try:
        as_account(account.uid, account.gid, connect, 2 * _SECONDS, groups=account.groups)
    except UdiError as error:
        yield warning(
            f"gateway.daemon: {site.store.account} cannot connect to {path}: {error.message}",
            "images of the Docker daemon are refused until then, all others are not",
        )


def _answers(site: SiteConfig, where: str) -> Iterator[Finding]:
    """For root, who asks for its state, and for a user, who asks for the images."""
    try:
        client.status(site, _SECONDS)
    except UdiError as error:
        yield wrong(f"{where}: {error.message}", error.hint or "start it, or see its log")
        return
    try:
        as_account(_NOBODY, _NOBODY, lambda: str(client.ask(site, ListImages(), timeout=_SECONDS) and ""), 2 * _SECONDS)
    except UdiError as error:
        yield wrong(f"{where}: answers root, but no user: {error.message}", "users must reach the socket")
