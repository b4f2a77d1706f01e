"""The jobs and nodes of a workload manager's hooks: jobs with state here, held jobs, and nodes out of service."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jobs.state import JobState, jobs_with_state
from jobs.tries import Hold
from nodehealth.records import DirtyNode, dirty_nodes
from udi.command import Deadline
from udi.config import SiteConfig
from udi.nodes import Node, folded
from udi.platform import Machine
from udiroot.errors import UdiError


@dataclass(frozen=True)
class NodeGroup:
    """Nodes that are in one state for one reason, since about the same time (`since`, epoch seconds, 0 where nobody
    knows). `jobs` each may have left something."""

    nodes: tuple[Node, ...]
    state: str
    jobs: tuple[str, ...]
    reason: str
    since: int

    def as_json(self) -> dict[str, Any]:
        """The nodes folded."""
        return dataclasses.asdict(self) | {"nodes": folded(self.nodes), "count": len(self.nodes)}


@dataclass(frozen=True)
class Jobs:
    """Jobs and nodes as the workload manager's hooks left them; `states` is each dirty node's present status,
    `unknown` where nobody could say; a `since` of 0 is not known; and `errors` are what could not be read."""

    jobs: tuple[JobState, ...] = ()
    held: tuple[Hold, ...] = ()
    nodes: tuple[DirtyNode, ...] = ()
    states: Mapping[Node, str] = field(default_factory=dict)
    errors: tuple[str, ...] = ()

    def groups(self) -> list[NodeGroup]:
        """The dirty nodes, those alike together; by state, the oldest first."""
        found: dict[tuple[object, ...], list[DirtyNode]] = {}
        for dirty in self.nodes:
            key = (self.states[dirty.node], dirty.jobs, dirty.reason, dirty.since // 60)
            found.setdefault(key, []).append(dirty)
        groups = [
            NodeGroup(
                tuple(dirty.node for dirty in alike),
                self.states[alike[0].node],
                alike[0].jobs,
                alike[0].reason,
                min(dirty.since for dirty in alike),
            )
            for alike in found.values()
        ]
        return sorted(groups, key=lambda group: (group.state, group.since))


def jobs_of_host(site: SiteConfig, machine: Machine, held: tuple[Hold, ...]) -> Jobs:
    """The jobs with state on this job host, and the nodes of its machine that are dirty, next to jobs that are held.

    Raises UpstreamFailed where files of the job host cannot be read.
    """
    nodes = tuple(dirty_nodes(site))
    jobs, damaged = _jobs(site)
    states, unknown = _states(machine, [dirty.node for dirty in nodes])
    return Jobs(jobs, held, nodes, states, (*damaged, *unknown))


def _jobs(site: SiteConfig) -> tuple[tuple[JobState, ...], tuple[str, ...]]:
    """The jobs, and what is wrong with the states that cannot be read."""
    jobs, damaged = [], []
    for directory in jobs_with_state(site):
        try:
            state = directory.load()
        except UdiError as error:
            damaged.append(f"{error.message} (hint: {error.hint})" if error.hint else error.message)
            continue
        if state:
            jobs.append(state)
    return tuple(jobs), tuple(damaged)


def _states(machine: Machine, nodes: list[Node]) -> tuple[dict[Node, str], tuple[str, ...]]:
    unknown = dict.fromkeys(nodes, "unknown")
    if not nodes:
        return unknown, ()
    try:
        present = machine.states(nodes, Deadline(machine.command_deadline))
    except UdiError as error:
        return unknown, (f"node states unknown: {error.message}",)
    return unknown | {node: state.status for node, state in present.items()}, ()
