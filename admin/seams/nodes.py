"""An operator's part in dirty nodes, for `udi-admin` and `udi-nodehealth`."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping

import click

from jobs import metrics
from nodehealth import check
from nodehealth.out_of_service import take_out_of_service
from nodehealth.recovery import recover
from udi.command import Deadline, run
from udi.config import SiteConfig
from udi.fanout import Answers, FanOutResult
from udi.nodecommand import probe_command, probe_here
from udi.nodes import Node, folded
from udi.platform import Machine
from udiroot.errors import TeardownIncomplete, UdiError, printable

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


def probe_nodes(site: SiteConfig, machine: Machine, text: str, facts: Mapping[str, str]) -> FanOutResult:
    """What the nodes of `text` say that they have, through the machine's own fan-out. Raises UpstreamFailed."""
    nonce = secrets.token_hex(16)
    command_line = probe_command(site, machine.identity_file(), facts, nonce)
    return machine.run(machine.parse_nodes(text), command_line, nonce, Deadline(machine.fanout_deadline))


def probe_this_node(site: SiteConfig, node: Node, facts: Mapping[str, str]) -> FanOutResult:
    """The same of this host, which is the node."""
    nonce = secrets.token_hex(16)
    answers = Answers([node], lambda _: os.uname().nodename, nonce)
    try:
        done = run(probe_here(site, facts, nonce), seconds=site.node.deadline, on_line=answers.read)
        last = (done.stdout.decode("utf-8", "replace").strip().splitlines() or ["without a message"])[-1]
        cause = f"exit code {done.exit_code}: {printable(last, 300)}"
    except UdiError as error:
        cause = error.message
    return answers.result(cause)


def mark_nodes(site: SiteConfig, machine: Machine, text: str, reason: str) -> None:
    """Take the nodes of `text` out of service for an operator's reason. Raises UpstreamFailed, TimedOut."""
    nodes = machine.parse_nodes(text)
    deadline = Deadline(2 * machine.command_deadline)
    metrics.start_metrics(site)
    take_out_of_service(site, machine, _BY_HAND, dict.fromkeys(nodes, reason), deadline)
    metrics.publish(site)
    click.echo(f"{folded(nodes)} admindown: {reason}")
