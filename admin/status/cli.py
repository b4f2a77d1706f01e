"""`udi-admin status`: nodes, jobs and the gateway, once or again and again."""

from __future__ import annotations

import time
from collections.abc import Callable

import click
from rich.console import Console, Group
from rich.live import Live

from admin.console.program import site_of
from admin.console.screen import show, terminal
from admin.seams.machines import machine_of
from admin.seams.managers import manager_of
from admin.status.lines import lines, tables
from admin.status.status import Status, read_status
from udi.commandline import json_option


@click.command()
@click.option(
    "--watch",
    "seconds",
    is_flag=False,
    flag_value=5.0,
    default=None,
    type=click.FloatRange(min=0.1, max=86400.0),
    metavar="[SECONDS]",
    help="Show it again every so many seconds (5), until Ctrl-C.",
)
@json_option
@click.pass_obj
def status(config_path: str, as_json: bool, seconds: float | None) -> None:
    """Show nodes that are not clean, jobs with images, held jobs, and the gateway: its store, pulls and last errors.

    In a terminal these are columns; elsewhere each line is a sentence of its own. Nodes that are in one state for one
    reason since the same minute are one line: nid[00012-00015].

    Jobs are those of this host's hooks alone. With Torque, so are held jobs and nodes: run it on each MOM node. With
    native Slurm the jobs are those on this node; nodes and held jobs are the cluster's, as slurmctld has them.

    \b
    With --json, the keys are:
      at         when all this was so
      jobs       job, user, image, image_id, nodes, phase, since, allocation, plan
      held       job, reason, since
      nodes      node, state, jobs, reason, since, in_service: one for each node
      groups     nodes, count, state, jobs, reason, since: those alike folded
      gateway    reachable; then queue, errors, images, bytes, or else trouble
      troubles   what could not be read

    Times are seconds since 1970, 0 where nobody knows. With --watch too, each object is one line.
    """
    site = site_of(config_path)

    def read() -> Status:
        return read_status(site, manager_of(site).jobs(machine_of(site)))

    if seconds is None:
        _print(terminal(), read(), as_json=as_json, indent=1)
        return
    try:
        _watch(read, seconds, as_json=as_json)
    except KeyboardInterrupt:
        return


def _print(console: Console, found: Status, *, as_json: bool, indent: int | None) -> None:
    if as_json:
        click.echo(found.as_json(indent=indent))
    elif console.is_terminal:
        show(console, *tables(found))
    else:
        click.echo("\n".join(lines(found)))


def _watch(read: Callable[[], Status], seconds: float, *, as_json: bool) -> None:
    """In a terminal one screen that changes, and what does not fit is cut; elsewhere one after the other."""
    console = terminal()
    if as_json or not console.is_terminal:
        while True:
            _print(console, read(), as_json=as_json, indent=None)
            time.sleep(seconds)
    with Live(console=console, screen=True, auto_refresh=False, vertical_overflow="ellipsis") as live:
        while True:
            live.update(Group(*tables(read())), refresh=True)
            time.sleep(seconds)
