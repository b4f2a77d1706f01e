"""What `udi-admin status` shows: jobs with state here, held jobs, nodes out of service, and the gateway's queue."""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass, field
from typing import Any

from admin.seams.jobs import Jobs
from gateway.client import client
from udi.config import SiteConfig
from udiroot.errors import UdiError

_GATEWAY_SECONDS = 10.0


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


def _gateway(site: SiteConfig) -> dict[str, Any]:
    """The gateway's queue, store and last errors; `trouble` where it does not answer."""
    try:
        return dataclasses.asdict(client.status(site, _GATEWAY_SECONDS))
    except UdiError as error:
        return {"trouble": error.message}
