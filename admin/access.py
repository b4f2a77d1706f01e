"""Whether somebody else can reach a file: each directory on its way, links included, by the modes of all of them."""

from __future__ import annotations

import os
import stat

from udi.accounts import Account
from udi.oserrors import reason

_MAX_LINKS = 40


def hindrance(path: str, account: Account | None, wanted: int) -> str:
    """What keeps an account from a file at an absolute path, as `/root has mode 0700`; empty where nothing does.

    `wanted` is of os.R_OK and os.X_OK; None stands for an account that owns nothing and is in no group. Access
    control lists are not looked at.
    """
    if account is not None and account.uid == 0:
        return ""
    pending, at, links = [part for part in path.split("/") if part], "/", 0
    while pending:
        if blocked := _blocked(at, account, os.X_OK):
            return blocked
        part = pending.pop(0)
        at = os.path.dirname(at) if part == ".." else os.path.join(at, part)
        try:
            target = os.readlink(at) if os.path.islink(at) else ""
        except OSError as error:
            return f"{at}: {reason(error)}"
        if target:
            links += 1
            if links > _MAX_LINKS:
                return f"{path}: too many links"
            pending = [piece for piece in target.split("/") if piece not in ("", ".")] + pending
            at = "/" if target.startswith("/") else os.path.dirname(at)
    return _blocked(at, account, wanted)


def _blocked(path: str, account: Account | None, wanted: int) -> str:
    try:
        status = os.stat(path)
    except OSError as error:
        return f"{path}: {reason(error)}"
    shift = 0
    if account is not None:
        shift = 6 if status.st_uid == account.uid else 3 if status.st_gid in account.groups else 0
    granted = stat.S_IMODE(status.st_mode) >> shift
    return "" if granted & wanted == wanted else f"{path} has mode {stat.S_IMODE(status.st_mode):04o}"
