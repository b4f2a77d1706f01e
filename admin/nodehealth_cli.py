"""`udi-nodehealth`: the check as a node runs it, and an operator's part in dirty nodes."""

from __future__ import annotations

import os
import sys

import click

from admin.seams.machines import machine_of
from admin.seams.managers import manager_of
from udi.commandline import config_option, run, version_option
from udi.config import load

PROGRAM = "udi-nodehealth"


@click.group()
@config_option
@version_option
@click.pass_context
def cli(context: click.Context, config_path: str) -> None:
    """Check compute nodes, take them out of service, and bring them back."""
    context.obj = config_path


@cli.command()
@click.pass_obj
def check(config_path: str) -> None:
    """On a node: is anything of shifter-xc left? Prints one line; exit code 0 when clean, 1 when dirty."""
    site = load(config_path)
    sys.exit(manager_of(site).check(machine_of(site)))


@cli.command()
@click.argument("nodes")
@click.option("--reason", default="marked by an operator", show_default=True, help="Shown by udi-admin status.")
@click.pass_obj
def admindown(config_path: str, nodes: str, reason: str) -> None:
    """Take NODES out of service: nid[00012-00013] or 12-13,17."""
    site = load(config_path)
    manager_of(site).mark(machine_of(site), nodes, reason)


@cli.command()
@click.argument("nodes")
@click.pass_obj
def recover(config_path: str, nodes: str) -> None:
    """Clean, check and bring back NODES that shifter-xc took out of service.

    With native Slurm, on the node itself, by its name.
    """
    site = load(config_path)
    manager_of(site).recover(machine_of(site), nodes)


def main() -> None:
    """The program `udi-nodehealth`. What it writes does not depend on the caller's umask."""
    os.umask(0o022)
    run(cli, PROGRAM)
