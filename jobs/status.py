"""What `udi-admin status` shows: jobs with state here, held jobs, and nodes that we took out of service."""

from __future__ import annotations

import dataclasses
import datetime
import json
from dataclasses import dataclass

from alps.nids import folded, node_name
from alps.nodestates import read_states
from jobs.state import JobState, jobs_with_state
from jobs.tries import Hold, holds
from nodehealth.records import DirtyNode, dirty_nodes
from udi.command import Deadline
from udi.config import SiteConfig
from udiroot.errors import UdiError


@dataclass(frozen=True)
class Status:
    """All of it; `states` is each dirty node's present status, `unknown` where Cray's tool could not tell."""

    jobs: tuple[JobState, ...]
    held: tuple[Hold, ...]
    nodes: tuple[DirtyNode, ...]
    states: dict[int, str]
    troubles: tuple[str, ...] = ()

    def as_json(self) -> str:
        """One JSON object."""
        document = {
            "jobs": [dataclasses.asdict(job) for job in self.jobs],
            "held": [dataclasses.asdict(hold) for hold in self.held],
            "nodes": [dataclasses.asdict(node) | {"state": self.states[node.nid]} for node in self.nodes],
            "troubles": list(self.troubles),
        }
        return json.dumps(document, indent=1, sort_keys=True)

    def as_text(self) -> str:
        """A few lines for a person."""
        lines = [
            f"job {job.job}: {job.phase}, {job.image}, user {job.user}, {folded(job.nids)}, since {_time(job.since)}"
            for job in self.jobs
        ]
        lines += [f"job {hold.job}: held since {_time(hold.since)}: {hold.reason}" for hold in self.held]
        lines += [
            f"{node_name(node.nid)}: {self.states[node.nid]}, dirty since {_time(node.since)},"
            f" job {', '.join(node.jobs)}: {node.reason}"
            for node in self.nodes
        ]
        lines += self.troubles
        return "\n".join(lines or ["no jobs with images here, no dirty nodes"])


def read_status(site: SiteConfig) -> Status:
    """Everything, as it is now. Raises UpstreamFailed where our own files cannot be read."""
    nodes = tuple(dirty_nodes(site))
    jobs, broken = _jobs(site)
    states, unknown = _states(site, [node.nid for node in nodes])
    return Status(jobs, tuple(holds(site)), nodes, states, (*broken, *unknown))


def _jobs(site: SiteConfig) -> tuple[tuple[JobState, ...], tuple[str, ...]]:
    """The jobs, and what is wrong with the states that cannot be read."""
    jobs, broken = [], []
    for folder in jobs_with_state(site):
        try:
            state = folder.load()
        except UdiError as error:
            broken.append(error.message)
            continue
        if state:
            jobs.append(state)
    return tuple(jobs), tuple(broken)


def _states(site: SiteConfig, nids: list[int]) -> tuple[dict[int, str], tuple[str, ...]]:
    unknown = dict.fromkeys(nids, "unknown")
    if not nids:
        return unknown, ()
    try:
        present = read_states(site, nids, Deadline(site.alps.command_deadline))
    except UdiError as error:
        return unknown, (f"node states unknown: {error.message}",)
    return unknown | {nid: state.status for nid, state in present.items()}, ()


def _time(seconds: int) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
