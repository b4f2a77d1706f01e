"""The store: whose it is, and that its account can write it and read images as jobs will."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from admin.checks.as_account import as_account
from admin.checks.check import Check, Finding, fine, wrong
from udi.accounts import store_owner
from udi.config import SiteConfig
from udi.oserrors import reason
from udi.store import StoreLayout
from udiroot.errors import UdiError

_SECONDS = 15.0
"""A file system that takes longer for one small file is one that hooks would wait for, too."""
_MOST_NAMES = 100_000


def checks(site: SiteConfig) -> list[Check]:
    """Checks of the configuration."""
    return [Check("store.owner", f"{site.store.path} is owned by {site.store.account} alone", lambda: _owner(site))]


def trials(site: SiteConfig) -> list[Check]:
    """Trials, as the store's account."""
    return [
        Check("store.write", f"{site.store.account} writes to {site.store.path}", lambda: _written(site)),
        Check("store.read", f"{site.store.account} reads an image", lambda: _read(site)),
    ]


def newest_image(site: SiteConfig) -> str:
    """The name of an image of the store as it lies in `images`, the one that came last; empty where there is none.

    Raises OSError.
    """
    formats = ("squashfs", "ext4", "directory")
    newest, since = "", 0.0
    try:
        with os.scandir(StoreLayout(site.store.path).images) as entries:
            for number, entry in enumerate(entries):
                if number >= _MOST_NAMES:
                    break
                if not entry.name.startswith(".") and entry.name.rpartition(".")[2] in formats:
                    made = entry.stat(follow_symlinks=False).st_mtime
                    newest, since = (entry.name, made) if made >= since else (newest, since)
    except FileNotFoundError:
        return ""
    return newest


def _owner(site: SiteConfig) -> Iterator[Finding]:
    """The store, and its directories where they exist, are the account's, and nobody else may write them."""
    uid, _ = store_owner(site.store.account)
    if uid == 0 and site.store.account != "0":
        yield wrong("store.account must not be root", "give the store an account of its own")
    if not os.path.isdir(site.store.path):
        yield wrong(f"store.path: {site.store.path} is not a directory on this host")
        return
    for path in (site.store.path, *(f"{site.store.path}/{name}" for name in ("images", "refs", "plans"))):
        try:
            status = os.stat(path)
        except FileNotFoundError:
            continue  # the gateway makes it
        except OSError as error:
            yield wrong(f"store.path: {path}: {reason(error)}")
            continue
        if status.st_uid != uid:
            yield wrong(
                f"store.path: {path} is owned by uid {status.st_uid}, must be owned by store.account, uid {uid}",
                f"chown {uid} {path}",
            )
        if status.st_mode & 0o022:
            yield wrong(
                f"store.path: {path} of mode {stat.S_IMODE(status.st_mode):04o} may be written by others",
                f"chmod go-w {path}",
            )


def _written(site: SiteConfig) -> Iterator[Finding]:
    """Where the store is not there at all, that is said once, with its owner."""
    if not os.path.isdir(site.store.path):
        return
    uid, gid = store_owner(site.store.account)

    def make_and_remove() -> str:
        path = f"{site.store.path}/.check-{os.getpid()}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            os.write(descriptor, b"udi-admin check-config\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
            os.unlink(path)
        return ""

    try:
        as_account(uid, gid, make_and_remove, _SECONDS)
    except UdiError as error:
        yield wrong(
            f"store.path: {site.store.account} cannot write to {site.store.path}: {error.message}",
            "the gateway needs it: is there room, and is it mounted for writing?",
        )


def _read(site: SiteConfig) -> Iterator[Finding]:
    if not os.path.isdir(site.store.path):
        return
    uid, gid = store_owner(site.store.account)

    def read_a_block() -> str:
        name = newest_image(site)
        if name and not name.endswith(".directory"):
            with open(f"{StoreLayout(site.store.path).images}/{name}", "rb") as image:
                image.read(4096)
        return name

    try:
        name = as_account(uid, gid, read_a_block, _SECONDS)
    except UdiError as error:
        yield wrong(
            f"store.path: {site.store.account} cannot read images in {site.store.path}: {error.message}",
            "hooks and nodes read them as that account",
        )
        return
    if not name:
        yield fine("the store has no image yet")
