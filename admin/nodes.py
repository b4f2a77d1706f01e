"""An operator's part in dirty nodes, for `udi-admin` and `udi-nodehealth`."""

from __future__ import annotations

import click

from jobs import metrics
from nodehealth import check
from nodehealth.out_of_service import take_out_of_service
from nodehealth.recovery import recover
from udi.command import Deadline
from udi.config import SiteConfig
from udi.nodes import folded
from udi.platform import Machine
from udiroot.errors import TeardownIncomplete

_BY_HAND = "0"
"""The job that a node is recorded under when an operator marks it: no job has this number."""


def check_node(site: SiteConfig, machine: Machine) -> int:
    """On a node of the machine: is anything of shifter-xc left? Prints one line; 0 where it is clean, else 1."""
    return check.run(["--root", site.node.root, "--run", site.node.run, "--nid-file", machine.identity_file()])


def recover_nodes(site: SiteConfig, machine: Machine, text: str) -> None:
    """Bring the nodes of `text` back and print a line for each. Raises TeardownIncomplete where one is not clean."""
    failed = []
    metrics.start_metrics(site)
    for recovery in recover(site, machine, machine.parse_nodes(text), Deadline(3 * machine.fanout_deadline)):
        if recovery.problem:
            failed.append(recovery.node)
        click.echo(f"{recovery.node}: {recovery.problem or 'clean and up'}")
    metrics.publish(site)  # fewer nodes are dirty now, and no hook may run for a while
    if failed:
        raise TeardownIncomplete(f"{folded(failed)} not brought back into service")


def mark_nodes(site: SiteConfig, machine: Machine, text: str, reason: str) -> None:
    """Take the nodes of `text` out of service for an operator's reason. Raises UpstreamFailed, TimedOut."""
    nodes = machine.parse_nodes(text)
    deadline = Deadline(2 * machine.command_deadline)
    metrics.start_metrics(site)
    take_out_of_service(site, machine, _BY_HAND, dict.fromkeys(nodes, reason), deadline)
    metrics.publish(site)
    click.echo(f"{folded(nodes)} admindown: {reason}")
