"""Whether somebody else can reach a file, or change it: each directory on its way, links included, by their modes."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

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
    try:
        *directories, last = _way(path)
    except OSError as error:
        return f"{error.filename}: {reason(error)}"
    blocked = (_blocked(directory, account, os.X_OK) for directory in directories)
    return next(filter(None, blocked), "") or _blocked(last, account, wanted)


def intruder(path: str) -> str:
    """Who but root can put something else in the place of a file or directory at an absolute path, or of the nearest
    one above it that exists, as `/x has mode 0777`; empty where nobody can."""
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    try:
        for at in _way(path):
            status = os.stat(at)
            if status.st_uid != 0:
                return f"{at} is owned by uid {status.st_uid}"
            if status.st_mode & stat.S_IWOTH and not (stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX):
                return f"{at} has mode {stat.S_IMODE(status.st_mode):04o}"
    except OSError as error:
        return f"{error.filename}: {reason(error)}"
    return ""


def _way(path: str) -> Iterator[str]:
    """Every directory on the way to a file, those of links included, and the file at last. Raises OSError."""
    pending, at, links = [part for part in path.split("/") if part], "/", 0
    while pending:
        yield at
        part = pending.pop(0)
        at = os.path.dirname(at) if part == ".." else os.path.join(at, part)
        target = os.readlink(at) if os.path.islink(at) else ""
        if target:
            links += 1
            if links > _MAX_LINKS:
                raise OSError(errno.ELOOP, "too many links", path)
            pending = [piece for piece in target.split("/") if piece not in ("", ".")] + pending
            at = "/" if target.startswith("/") else os.path.dirname(at)
    yield at


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
