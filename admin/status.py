"""What `udi-admin status` shows: jobs with state here, held jobs, nodes out of service, and the gateway's queue."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.client import client
from jobs.state import JobState, jobs_with_state
from jobs.tries import Hold
from nodehealth.records import DirtyNode, dirty_nodes
from udi.command import Deadline
from udi.config import SiteConfig
from udi.nodes import Node, folded
from udi.platform import Machine
from udiroot.errors import UdiError

_GATEWAY_SECONDS = 10.0


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


@dataclass(frozen=True)
class Status(Jobs):
    """All of it. `gateway` is the gateway's answer to `status`, or `trouble`, why there is none. `at` is when all this
    was so (epoch seconds)."""

    gateway: dict[str, Any] = field(default_factory=lambda: {"trouble": "the image gateway was not queried"})
    at: int = 0

    def document(self) -> dict[str, Any]:
        """The keys that `udi-admin status --help` lists."""
        return {
            "at": self.at,
            "jobs": [job.as_json() for job in self.jobs],
            "held": [dataclasses.asdict(hold) for hold in self.held],
            "nodes": [dirty.as_json() | {"state": self.states[dirty.node]} for dirty in self.nodes],
            "groups": [group.as_json() for group in self.groups()],
            "troubles": list(self.errors),
            "gateway": self.gateway | {"reachable": "trouble" not in self.gateway},
        }

    def as_json(self, *, indent: int | None = 1) -> str:
        """One JSON object."""
        return json.dumps(self.document(), indent=indent, sort_keys=True)


def read_status(site: SiteConfig, jobs: Jobs) -> Status:
    """All of it, as it is now."""
    gateway = _gateway(site)
    return Status(jobs.jobs, jobs.held, jobs.nodes, jobs.states, jobs.errors, gateway, int(time.time()))


def jobs_of_host(site: SiteConfig, machine: Machine, held: tuple[Hold, ...]) -> Jobs:
    """The jobs with state on this job host, and the nodes of its machine that are dirty, next to jobs that are held.

    Raises UpstreamFailed where files of the job host cannot be read.
    """
    nodes = tuple(dirty_nodes(site))
    jobs, damaged = _jobs(site)
    states, unknown = _states(machine, [dirty.node for dirty in nodes])
    return Jobs(jobs, held, nodes, states, (*damaged, *unknown))


def _gateway(site: SiteConfig) -> dict[str, Any]:
    """The gateway's queue, store and last errors; `trouble` where it does not answer."""
    try:
        return dataclasses.asdict(client.status(site, _GATEWAY_SECONDS))
    except UdiError as error:
        return {"trouble": error.message}


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
