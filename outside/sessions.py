"""The sessions of a host: how many there are, and what one that was killed has left.

A session is a job of this host (`jobs.local`), under a name of its own. It is open as long as a process holds its lock.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import secrets
from collections.abc import Iterator

from jobs.here import jobs_here
from jobs.local import LocalJob
from outside.settings import SessionsConfig
from udi import durable
from udi.accounts import Account
from udi.command import Deadline
from udi.config import SiteConfig
from udi.filelock import locked
from udi.oserrors import reason
from udiroot.errors import NotPermitted, TimedOut, UdiError, UpstreamFailed

_log = logging.getLogger("udi.sessions")
_PREFIX = "session."
_ADMISSION_SECONDS = 20.0
_TEARDOWN_SECONDS = 60.0


def of_sessions(site: SiteConfig) -> SiteConfig:
    """The site with the sessions' directories, and with the node software as this host has it."""
    settings = site.table(SessionsConfig)
    node = dataclasses.replace(
        site.node, root=settings.root, run=settings.run, zip=site.install.zip, python=(site.install.python,)
    )
    store = dataclasses.replace(site.store, node_path="")
    ssh = dataclasses.replace(site.ssh, enabled=False)
    return dataclasses.replace(site, node=node, store=store, ssh=ssh)


@contextlib.contextmanager
def admitted(site: SiteConfig, user: Account) -> Iterator[LocalJob]:
    """A new session of the user, locked while the context lasts. What a killed one left is removed before.

    `site` is that of `of_sessions`. Raises NotPermitted where there are as many as the site allows, TimedOut,
    UpstreamFailed.
    """
    with contextlib.ExitStack() as stack:
        with _alone(site.node.run):
            names = _open_sessions(site)
            _require_room(site.table(SessionsConfig), user, names)
            local = LocalJob(site, f"{_prefix(user.uid)}{secrets.token_hex(6)}")
            stack.enter_context(local.locked(Deadline(_ADMISSION_SECONDS)))
        yield local


def sweep(site: SiteConfig) -> list[str]:
    """Remove what sessions have left whose process was killed; the names of those that are open.

    Raises TeardownIncomplete, TimedOut, UpstreamFailed.
    """
    with _alone(site.node.run):
        return _open_sessions(site)


def _open_sessions(site: SiteConfig) -> list[str]:
    names = []
    for name in sorted(each for each in jobs_here(site) if each.startswith(_PREFIX)):  # a host may be a node, too
        local = LocalJob(site, name)
        if local.is_busy():
            names.append(name)
            continue
        try:
            with local.locked(Deadline(1.0)):
                local.take_down(Deadline(_TEARDOWN_SECONDS))
                local.forget()
            _log.warning("session %s had been killed; what it left was removed", name)
        except UdiError as error:
            _log.error("what session %s left cannot be removed: %s", name, error.message)
    return names


def _require_room(settings: SessionsConfig, user: Account, names: list[str]) -> None:
    own = sum(name.startswith(_prefix(user.uid)) for name in names)
    if own >= settings.max_per_user:
        raise NotPermitted(f"you have {own} sessions on this host, and the site allows {settings.max_per_user}")
    if len(names) >= settings.max_sessions:
        raise NotPermitted(
            f"{len(names)} sessions are open on this host, and the site allows {settings.max_sessions}",
            "try again later, or submit a job",
        )


def _prefix(uid: int) -> str:
    return f"{_PREFIX}{uid}."


def _alone(directory: str) -> contextlib.AbstractContextManager[None]:
    """Alone in counting sessions. Raises TimedOut, UpstreamFailed."""
    path = f"{directory}/.count"

    def opened() -> int:
        try:
            durable.make_public_directory(os.path.dirname(directory))
            with contextlib.suppress(FileExistsError):
                os.mkdir(directory, 0o700)
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise UpstreamFailed(f"{directory} cannot be used: {reason(error)}") from error

    refusal = TimedOut("other sessions are being opened on this host", "try again")
    return locked(path, opened, Deadline(_ADMISSION_SECONDS), refusal)


def sessions_here(site: SiteConfig) -> list[str]:
    """Sessions that this host has anything of, open or not. Raises UpstreamFailed."""
    if not site.table(SessionsConfig).enabled:
        return []
    return sorted(name for name in jobs_here(of_sessions(site)) if name.startswith(_PREFIX))
