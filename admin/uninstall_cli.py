"""`udi-admin uninstall`: what was installed goes; what users, jobs and the site have stays, and is named."""

from __future__ import annotations

import os

import click

from admin.console.program import PROGRAM, site_of
from admin.install.installed import Record
from admin.install.unfinished import places, unfinished
from admin.install.uninstalling import Step, callers, planned_removal
from admin.left import left_on_purpose
from admin.seams.machines import machine_of
from admin.seams.managers import Manager, manager_of
from admin.sitefiles.all_files import site_files
from outside.sessions import sessions_here
from udi.config import SiteConfig
from udi.platform import Machine
from udiroot.errors import NotPermitted, UdiError, UsageError


@click.command()
@click.option("--root", default="/", metavar="DIR", show_default=True, help="Root directory that was installed below.")
@click.option("--dry-run", is_flag=True, help="Print what would be removed, and change nothing.")
@click.option("--force", is_flag=True, help="Although jobs run, or files of the site still call ours.")
@click.pass_obj
def uninstall(config_path: str, root: str, dry_run: bool, force: bool) -> None:
    """Remove all that install placed. Prints the paths, and what is left on purpose.

    Refused while jobs or sessions of ours are on this host, or where something of the site still calls ours.
    """
    if not root:
        raise UsageError("--root is empty, must be a directory")
    if os.geteuid() != 0:
        raise UsageError("only root can uninstall")
    site = site_of(config_path)
    prefix = os.path.abspath(root).rstrip("/")
    machine, manager = machine_of(site), manager_of(site)
    files = site_files(site, machine, config_path)
    record = Record.read(prefix)
    left = unfinished(places(prefix, record, site))
    removal = planned_removal(prefix, record, files, site.install.zip, _figures(site), left)
    if removal.steps and not force:
        jobs = [] if prefix else jobs_in_the_way(site, manager, machine)
        _require_unused([*callers(prefix, files), *manager.callers(prefix)], jobs)
    if dry_run:
        for step in removal.steps:
            click.echo(f"would remove {step}")
        staying: list[str] = []
    else:
        staying = removal.carry_out(_report)
    for sentence in removal.kept:
        click.echo(f"{PROGRAM}: left: {sentence}", err=True)
    for path, what in [*((path, "is not empty") for path in staying), *left_on_purpose(site, config_path, prefix)]:
        click.echo(f"{PROGRAM}: left: {path}: {what}", err=True)


def _report(step: Step) -> None:
    click.echo(f"removed {step}")


def _require_unused(calling: list[str], jobs: list[str]) -> None:
    """Raises NotPermitted."""
    if jobs:
        raise NotPermitted(
            f"{', '.join(jobs[:8])}{' and more' if len(jobs) > 8 else ''} still here: nothing would take that down",
            "wait for their end (udi-admin status), or take them down (udi-admin takedown JOB)",
        )
    if calling:
        raise NotPermitted("; ".join(calling), "then uninstall again")


def jobs_in_the_way(site: SiteConfig, manager: Manager, machine: Machine) -> list[str]:
    """Jobs and sessions that have a root, and what could not be read."""
    try:
        found = manager.jobs(machine)
        return [*(f"job {job.job}" for job in found.jobs), *found.errors, *sessions_here(site)]
    except UdiError as error:
        return [error.message]


def _figures(site: SiteConfig) -> list[str]:
    """The files that Prometheus would go on reading: that of hooks, and that of the gateway."""
    import gateway.service.metrics  # with prometheus_client, which nothing else here needs
    import jobs.metrics

    directory = site.metrics.directory
    return [f"{directory}/{module.FILE}" for module in (jobs.metrics, gateway.service.metrics)] if directory else []
