"""All that `udi-admin check-config` proves, in order: the configuration itself, what it names on this host, trials, and
nodes.

Reading the file knows types and constraints; a file with such errors gets no further. Each idea beyond that is a module
of `admin.checks`, and each workload manager and machine brings its own checks.
"""

from __future__ import annotations

from collections.abc import Iterable

from admin.checks import accounts, files, gateway, logs, metrics, places, programs, remote, sessions, software, store
from admin.checks.check import Check, Level, Row
from admin.checks.nodes import Expected, facts_for_nodes, rows_of_nodes
from admin.seams.machine_trials import machine_trials
from admin.seams.machines import machine_of
from admin.seams.managers import Manager, manager_of
from admin.seams.tables import all_tables
from admin.sitefiles.all_files import site_files
from udi.config import SiteConfig, errors_in, parse
from udi.platform import Machine
from udi.sitefiles import SiteFile
from udi.trusted import trusted_text
from udiroot.errors import ConfigError, UdiError, UsageError


class Subject:
    """A configuration that can be read, with its workload manager and machine."""

    def __init__(self, site: SiteConfig) -> None:
        """Raises ConfigError."""
        self.site = site
        self.machine: Machine = machine_of(site)
        self.manager: Manager = manager_of(site)

    def checks(self) -> list[Check]:
        """Of the configuration, against files, accounts, programs and other settings of this host."""
        site, machine, manager = self.site, self.machine, self.manager
        of_machine = machine.programs() if manager.has_machine else {}
        return [
            *manager.checks(machine),
            *store.checks(site),
            *gateway.checks(site),
            *accounts.checks(site),
            *sessions.checks(site),
            *files.checks(site, self._site_files),
            *metrics.checks(site),
            *places.checks(site, manager.directories()),
            *programs.checks(site, {**of_machine, **manager.programs()}),
        ]

    def trials(self) -> list[Check]:
        """What jobs, users and the gateway will do, tried on this host."""
        site = self.site
        return [
            *self.manager.trials(),
            *(machine_trials(site) if self.manager.has_machine else ()),
            *store.trials(site),
            *gateway.trials(site),
            *remote.trials(site),
            *sessions.trials(site),
            *software.trials(site),
            *files.trials(self._site_files),
            *logs.trials(site),
            *programs.trials(site),
        ]

    def _site_files(self) -> list[SiteFile]:
        """Raises ConfigError."""
        return site_files(self.site, self.machine, self.site.path)

    def rows(self) -> list[Row]:
        """A row a check, of this host."""
        return [row for check in (*self.checks(), *self.trials()) for row in check.rows()]

    def rows_on(self, nodes: str) -> list[Row]:
        """Rows of nodes, by the names that the machine has for them. Raises UsageError."""
        try:
            result = self.manager.probe(self.machine, nodes, facts_for_nodes(self.site))
            jobs = self.manager.jobs(self.machine).jobs
        except UsageError:
            raise
        except UdiError as error:
            return [Row("node.start", Level.ERROR, error.message, error.hint)]
        running = {job.job for job in jobs if job.phase != "left"}
        return rows_of_nodes(self.site, result, Expected(software.installed_digest(self.site), running))


def read_subject(path: str) -> tuple[Subject | None, list[UdiError]]:
    """The configuration at `path`; where it cannot be read as one, everything that is wrong with the file."""
    try:
        text = trusted_text(path)
        found: list[UdiError] = [*errors_in(text, path, all_tables())]
        return (None, found) if found else (Subject(parse(text, path)), [])
    except UdiError as error:
        return None, [error]


def errors_of(path: str) -> list[UdiError]:
    """Everything that is wrong with the configuration at `path`, or with what it names on this host, without trials."""
    subject, errors = read_subject(path)
    if subject is None:
        return errors
    rows = (row for check in subject.checks() for row in check.rows())
    return [ConfigError(f"{path}: {row.what}", row.todo) for row in rows if row.level is Level.ERROR]


def rows_of_errors(errors: Iterable[UdiError]) -> list[Row]:
    """Errors of the file itself, for programs."""
    return [Row("configuration", Level.ERROR, error.message, error.hint) for error in errors]
