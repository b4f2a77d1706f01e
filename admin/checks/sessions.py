"""Sessions of `udi shell`, where the site allows them: who may open one, and sudo, which starts it."""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Iterator

from admin.checks.check import Check, Finding, fine, raised, warning, wrong
from outside.settings import SessionsConfig
from outside.shell import SESSION
from udi.accounts import account_of, group_id
from udi.command import run
from udi.config import SiteConfig
from udi.oserrors import reason
from udiroot.errors import UdiError, printable

_SECONDS = 10.0
_ANYBODY = "nobody"


def checks(site: SiteConfig) -> list[Check]:
    """Checks of the configuration."""
    settings = site.table(SessionsConfig)
    if not settings.enabled:
        return []
    return [Check("sessions.accounts", "users and groups of sessions are known here", lambda: _accounts(settings))]


def trials(site: SiteConfig) -> list[Check]:
    """What sudo will do. Where it is not installed, users find no sessions, as on hosts that are not for them."""
    settings = site.table(SessionsConfig)
    if not settings.enabled:
        return []
    proves = f"lets users start {SESSION}"
    return [Check("sessions.sudo", f"{settings.sudo} {proves}", lambda: _sudo(site, settings))]


def _accounts(settings: SessionsConfig) -> Iterator[Finding]:
    for user in settings.users:
        yield from raised(functools.partial(account_of, user), "sessions.users")
    for group in settings.groups:
        if group_id(group) < 0:
            yield wrong(f"sessions.groups: no group '{printable(group)}' on this host")


def _sudo(site: SiteConfig, settings: SessionsConfig) -> Iterator[Finding]:
    if not os.path.isfile(settings.sudo):
        yield warning(
            f"sessions.sudo: there is no {settings.sudo}: nobody can open a session on this host",
            "install sudo where users shall; elsewhere nothing is to be done",
        )
        return
    status = os.stat(settings.sudo)
    if status.st_uid != 0 or not status.st_mode & stat.S_ISUID or not status.st_mode & 0o111:
        yield wrong(f"sessions.sudo: {settings.sudo} starts nothing as root", "it must be root's, with mode 4755")
        return
    try:
        rule = os.stat(settings.sudoers)
    except FileNotFoundError:
        yield warning(f"sessions.sudoers: {settings.sudoers} is not installed on this host", "udi-admin install")
        return
    except OSError as error:
        yield wrong(f"sessions.sudoers: {settings.sudoers}: {reason(error)}")
        return
    if rule.st_uid != 0 or rule.st_mode & 0o022:
        yield wrong(f"sessions.sudoers: sudo passes over {settings.sudoers}, which others can change", "chmod 0440")
        return
    yield from _rule(site, settings)


def _rule(site: SiteConfig, settings: SessionsConfig) -> Iterator[Finding]:
    """Asked of sudo, for a user whom the configuration names, or anybody."""
    if settings.groups and not settings.users:
        yield fine(f"{settings.sudoers} is there; which members of groups it is for, only they can try")
        return
    user = settings.users[0] if settings.users else _ANYBODY
    program = f"{site.install.bin}/{SESSION}"
    try:
        done = run([settings.sudo, "-n", "-l", "-U", user, program], seconds=_SECONDS)
    except UdiError as error:
        yield wrong(f"sessions.sudo: {error.message}")
        return
    if done.exit_code:
        yield wrong(
            f"sessions.sudoers: sudo does not let {user} start {program}",
            f"does its configuration include {settings.sudoers}, and has that the rule of this configuration?",
        )
