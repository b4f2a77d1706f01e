"""What `udi-admin status` shows: jobs with state here, held jobs, nodes out of service, and the gateway's queue."""

from __future__ import annotations

import dataclasses
import datetime
import json
from dataclasses import dataclass, field
from typing import Any

from alps.nids import folded, node_name
from alps.nodestates import read_states
from gateway.client import client
from jobs.state import JobState, jobs_with_state
from jobs.tries import Hold, holds
from nodehealth.records import DirtyNode, dirty_nodes
from udi.command import Deadline
from udi.config import SiteConfig
from udiroot.errors import UdiError, printable

_GATEWAY_SECONDS = 10.0


@dataclass(frozen=True)
class Status:
    """All of it; `states` is each dirty node's present status, `unknown` where Cray's tool could not tell.

    `gateway` is what `gateway.service.requests` answers to `status`, or `trouble`, why it answers nothing.
    """

    jobs: tuple[JobState, ...]
    held: tuple[Hold, ...]
    nodes: tuple[DirtyNode, ...]
    states: dict[int, str]
    troubles: tuple[str, ...] = ()
    gateway: dict[str, Any] = field(default_factory=lambda: {"trouble": "the image gateway was not asked"})

    def as_json(self) -> str:
        """One JSON object."""
        document = {
            "jobs": [dataclasses.asdict(job) for job in self.jobs],
            "held": [dataclasses.asdict(hold) for hold in self.held],
            "nodes": [dataclasses.asdict(node) | {"state": self.states[node.nid]} for node in self.nodes],
            "troubles": list(self.troubles),
            "gateway": self.gateway,
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
        return "\n".join((lines or ["no jobs with images here, no dirty nodes"]) + self._gateway_lines())

    def _gateway_lines(self) -> list[str]:
        if "trouble" in self.gateway:
            return [str(self.gateway["trouble"])]
        lines = [f"store: {self.gateway['images']} images, {self.gateway['bytes'] / (1 << 30):.1f} GiB"]
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


def read_status(site: SiteConfig) -> Status:
    """Everything, as it is now. Raises UpstreamFailed where our own files cannot be read."""
    nodes = tuple(dirty_nodes(site))
    jobs, broken = _jobs(site)
    states, unknown = _states(site, [node.nid for node in nodes])
    return Status(jobs, tuple(holds(site)), nodes, states, (*broken, *unknown), _gateway(site))


def _gateway(site: SiteConfig) -> dict[str, Any]:
    """What the gateway says of its queue, its store and its last errors; `trouble` where it says nothing."""
    try:
        answer = client.ask(site, {"do": "status"}, timeout=_GATEWAY_SECONDS)
    except UdiError as error:
        return {"trouble": error.message}
    return {key: answer[key] for key in ("queue", "errors", "images", "bytes")}


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
