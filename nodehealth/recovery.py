"""Bringing a dirty node back: teardown of every job that left something there, then the check, and only then `up`."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping, Sequence

from nodehealth.records import dirty_nodes, forget
from udi.command import Deadline
from udi.config import SiteConfig
from udi.logformat import event
from udi.nodecommand import check_command, teardown_command
from udi.nodes import Node, in_brief
from udi.platform import OUT_OF_SERVICE, Machine
from udi.values import Frozen

_log = logging.getLogger("udi.nodes")


class Recovery(Frozen):
    """What became of one node; `problem` is empty for one that is up again."""

    node: Node
    problem: str = ""


def recover(site: SiteConfig, machine: Machine, nodes: Sequence[Node], deadline: Deadline) -> list[Recovery]:
    """Clean, check and bring back each node that we took out of service, or that the machine's own health checker did
    because of what our check reported. The check also says of which jobs, where a node's record cannot.

    A node that we did not take out is left alone where it is in service, since it may hold a running job's root, and
    where it holds nothing of ours, since then it is out of service for another reason. Raises UpstreamFailed or
    TimedOut when nodes are clean but could not be brought back; their records then stay.
    """
    marked = {dirty.node: dirty.jobs for dirty in dirty_nodes(site)}
    unmarked = sorted(set(nodes) - set(marked))
    states = machine.states(unmarked, deadline) if unmarked else {}
    suspects = [node for node, state in states.items() if state.status == OUT_OF_SERVICE]
    suspects += [node for node in nodes if node in marked and not marked[node]]
    marked |= _jobs_found_on(site, machine, suspects, deadline)
    ours = {node: marked[node] for node in sorted(set(nodes) & set(marked))}
    problems = dict.fromkeys(set(nodes) - set(ours), "skipped: not taken out of service by shifter-xc")
    problems |= _problems_after_cleaning(site, machine, ours, deadline)
    clean = [node for node in ours if node not in problems]
    machine.bring_into_service(clean, deadline)
    for node in clean:
        forget(site, node)
    if clean:
        where = in_brief(clean)
        _log.warning("%s clean and up again", where, extra=event("recovery", nodes=where, count=len(clean)))
    return [Recovery(node, problems.get(node, "")) for node in sorted(set(nodes))]


def _jobs_found_on(
    site: SiteConfig, machine: Machine, nodes: Sequence[Node], deadline: Deadline
) -> dict[Node, tuple[str, ...]]:
    """The jobs whose remains our own check reports, for each node where it reports any."""
    if not nodes:
        return {}
    nonce = secrets.token_hex(16)
    found = machine.run(nodes, check_command(site, machine.identity_file(), nonce), nonce, deadline).failed
    return {node: report.jobs for node, report in found.items() if report.jobs}


def _problems_after_cleaning(
    site: SiteConfig, machine: Machine, nodes: Mapping[Node, tuple[str, ...]], deadline: Deadline
) -> dict[Node, str]:
    """Nodes that are still dirty, and why: by the check, whatever teardown of their jobs reported before it."""
    if not nodes:
        return {}
    failed: dict[Node, str] = {}
    for job in sorted({job for jobs in nodes.values() for job in jobs}):
        nonce = secrets.token_hex(16)
        members = [node for node, jobs in nodes.items() if job in jobs]
        command_line = teardown_command(site, machine.identity_file(), job, nonce)
        failed |= machine.run(members, command_line, nonce, deadline).errors()
    nonce = secrets.token_hex(16)
    command_line = check_command(site, machine.identity_file(), nonce)
    checked = machine.run(list(nodes), command_line, nonce, deadline).errors()
    return {
        node: f"{reason}; teardown: {failed[node]}" if node in failed else reason for node, reason in checked.items()
    }
