"""The table `[sessions]`: who may use images on a login node without a job, and how much of it."""

from __future__ import annotations

from typing import ClassVar

from udi.settings import FEW, PATH, WORD, Bounds, setting
from udi.values import Frozen


class SessionsConfig(Frozen, kw_only=True):
    """Sessions of `udi shell`. Nobody may open one before the site says so."""

    NAME: ClassVar[str] = "sessions"

    enabled: bool = setting(False, "whether users may run images on this host without a job, by `udi shell`")
    users: tuple[str, ...] = setting([], "users who may; with groups empty too, everybody", WORD)
    groups: tuple[str, ...] = setting([], "groups whose members may", WORD)
    images: tuple[str, ...] = setting([], "patterns of image names that may be used, as `tools/*`; empty: all")
    max_sessions: int = setting(16, "sessions on this host at a time", FEW)
    max_per_user: int = setting(2, "sessions of one user on this host at a time", FEW)
    max_minutes: int = setting(480, "minutes after which a session is ended", Bounds(1, 31 * 24 * 60, unit="minutes"))
    root: str = setting("/var/udi-sessions", "directory of the sessions' roots", PATH)
    run: str = setting("/var/run/udi-sessions", "directory of the sessions' records", PATH)
    sudo: str = setting("/usr/bin/sudo", "sudo, by whose rule `udi shell` starts a session", PATH)
    sudoers: str = setting("/etc/sudoers.d/udi", "the file with that rule", PATH)
