"""What `udi-admin status` shows: jobs with state here, held jobs, nodes out of service, and the gateway's queue."""

from __future__ import annotations

import dataclasses
import datetime
import json
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
from udiroot.errors import UdiError, counted, printable

_GATEWAY_SECONDS = 10.0


@dataclass(frozen=True)
class Jobs:
    """Jobs and nodes as the workload manager's hooks left them; `states` is each dirty node's present status,
    `unknown` where nobody could say; a `since` of 0 is not known; and `errors` are what could not be read."""

    jobs: tuple[JobState, ...] = ()
    held: tuple[Hold, ...] = ()
    nodes: tuple[DirtyNode, ...] = ()
    states: Mapping[Node, str] = field(default_factory=dict)
    errors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Status(Jobs):
    """All of it. `gateway` is the gateway's answer to `status`, or `trouble`, why there is none."""

    gateway: dict[str, Any] = field(default_factory=lambda: {"trouble": "the image gateway was not queried"})

    def as_json(self) -> str:
        """One JSON object."""
        document = {
            "jobs": [job.as_json() for job in self.jobs],
            "held": [dataclasses.asdict(hold) for hold in self.held],
            "nodes": [dirty.as_json() | {"state": self.states[dirty.node]} for dirty in self.nodes],
            "troubles": list(self.errors),
            "gateway": self.gateway,
        }
        return json.dumps(document, indent=1, sort_keys=True)

    def as_text(self) -> str:
        """A few lines for a person."""
        lines = [
            f"job {job.job}: {job.phase}, {job.image}, user {job.user}, {folded(job.nodes)}, since {_time(job.since)}"
            for job in self.jobs
        ]
        lines += [f"job {hold.job}: held{_since(hold.since)}: {hold.reason}" for hold in self.held]
        lines += [
            f"{dirty.node}: {self.states[dirty.node]}, dirty{_since(dirty.since)}"
            f"{', job ' if dirty.jobs else ''}{', '.join(dirty.jobs)}: {dirty.reason}"
            for dirty in self.nodes
        ]
        lines += self.errors
        return "\n".join((lines or ["no jobs with images here, no dirty nodes"]) + self._gateway_lines())

    def _gateway_lines(self) -> list[str]:
        if "trouble" in self.gateway:
            return [str(self.gateway["trouble"])]
        lines = [f"store: {counted(self.gateway['images'], 'image')}, {self.gateway['bytes'] / (1 << 30):.1f} GiB"]
        lines += [
            f"pull: {printable(pull['reference'])}, uid {pull['uid']}, since {_time(pull['since'])}"
            for pull in self.gateway["queue"]
        ]
        lines += [
            f"failed: {printable(failed['reference'])}, uid {failed['uid']}, {_time(failed['until'])}:"
            f" {printable(failed['error'])}"
            for failed in self.gateway["errors"]
        ]
        return lines


def read_status(site: SiteConfig, jobs: Jobs) -> Status:
    """All of it, as it is now."""
    return Status(jobs.jobs, jobs.held, jobs.nodes, jobs.states, jobs.errors, _gateway(site))


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


def _since(seconds: int) -> str:
    """Since when; nothing where nobody knows."""
    return f" since {_time(seconds)}" if seconds else ""


def _time(seconds: int) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
