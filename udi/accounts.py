"""Accounts of the site: a person's uid and groups, and the store's owner, looked up once on the job host."""

from __future__ import annotations

import grp
import os
import pwd

from udi.values import Frozen
from udiroot.errors import ConfigError, NotFound, printable

_NO_ID = 2**32 - 1
"""Ids are unsigned 32 bit, and the largest number stands for none (chown(2), setfsuid(2))."""


class Account(Frozen):
    """An account. `groups` holds every group, the primary one first."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    shell: str


def account_of(name: str) -> Account:
    """The account called `name`. Raises NotFound."""
    try:
        return _account(pwd.getpwnam(name))
    except KeyError as error:
        raise NotFound(f"no account '{printable(name)}' on this node") from error


def account_of_uid(uid: int) -> Account:
    """The account with `uid`. Raises NotFound."""
    try:
        return _account(pwd.getpwuid(uid))
    except KeyError as error:
        raise NotFound(f"no account with uid {uid} on this node") from error


def store_owner(text: str) -> tuple[int, int]:
    """uid and gid of the store's account, which the configuration gives by name or as a number.

    Raises ConfigError for a name that does not exist, and for a number that no account can have.
    """
    if text.isascii() and text.isdecimal():
        uid = int(text)
        if uid >= _NO_ID:
            raise ConfigError(f"store.account: {printable(text)} is not a uid")
        try:
            return uid, pwd.getpwuid(uid).pw_gid
        except KeyError:
            return uid, uid
    try:
        entry = pwd.getpwnam(text)
    except KeyError as error:
        raise ConfigError(f"store.account: no account '{printable(text)}' on this node") from error
    return entry.pw_uid, entry.pw_gid


def group_name(gid: int) -> str:
    """The name of a group, or `group<gid>` where it has none: every gid of a job needs a line in /etc/group."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return f"group{gid}"


def group_id(name: str) -> int:
    """The gid of a group; -1 where there is no such group, which nobody is a member of."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return -1


def _account(entry: pwd.struct_passwd) -> Account:
    others = sorted(set(os.getgrouplist(entry.pw_name, entry.pw_gid)) - {entry.pw_gid})
    return Account(
        entry.pw_name, entry.pw_uid, entry.pw_gid, (entry.pw_gid, *others), entry.pw_dir, entry.pw_shell or "/bin/sh"
    )
