"""A Cray: ALPS and the system database answer on this host."""

from __future__ import annotations

import os
from collections.abc import Iterator

from admin.checks.check import Check, Finding, wrong
from alps.settings import AlpsConfig
from udi.command import run
from udi.config import SiteConfig
from udiroot.errors import UdiError, printable


def trials(site: SiteConfig) -> list[Check]:
    """One for each source of reservations that is asked by a command without a question of its own."""
    alps = site.table(AlpsConfig)
    found = []
    if "apstat" in alps.sources:
        found.append(Check("alps.apstat", "lists reservations", lambda: _asked(alps, "alps.apstat", alps.apstat, "-r")))
    return found


def _asked(alps: AlpsConfig, key: str, *command: str) -> Iterator[Finding]:
    if not os.access(command[0], os.X_OK):
        return  # reported with the programs
    try:
        done = run(command, seconds=alps.command_deadline)
    except UdiError as error:
        yield wrong(f"{key}: {error.message}", "is ALPS up, and may this host ask it?")
        return
    if done.exit_code:
        said = (done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason given"])[-1]
        yield wrong(
            f"{key}: {' '.join(command)} exits with {done.exit_code}: {printable(said[:200])}",
            "is ALPS up, and may this host ask it?",
        )
