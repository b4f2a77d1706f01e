"""Why nodes are out of service because of us: one JSON file a node under `jobs.nodes`, for root only.

Written before the node is marked, removed after it is up again, so that no node is ever out of service because of us
without a reason. A node that was left in service has one too, until it is recovered or a job could be set up there.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from udi import durable, oserrors
from udi.config import SiteConfig
from udi.nodes import Node, named
from udiroot.errors import UpstreamFailed, UsageError, printable


@dataclass(frozen=True)
class DirtyNode:
    """A node that stayed dirty: of which jobs (each may have left something), why, and since when (epoch seconds).

    `in_service` where we left it in service, since too many failed at once."""

    node: Node
    jobs: tuple[str, ...]
    reason: str
    since: int
    in_service: bool = False

    def as_json(self) -> dict[str, Any]:
        """The node by its name."""
        return dataclasses.asdict(self) | {"node": self.node.name}


def record(site: SiteConfig, job: str, reasons: Mapping[Node, str], now: int, *, in_service: bool = False) -> None:
    """Keep why each node is dirty. A node that was dirty before keeps its first moment, and its earlier jobs; one that
    was taken out of service stays so."""
    before = {dirty.node: dirty for dirty in dirty_nodes(site)}
    for node, reason in reasons.items():
        earlier = before.get(node)
        jobs = tuple(dict.fromkeys((*(earlier.jobs if earlier else ()), job)))
        since = earlier.since if earlier else now
        left = in_service and (earlier is None or earlier.in_service)
        dirty = DirtyNode(node, jobs, printable(reason, 400), since, left)
        durable.write_text(_path(site, node), json.dumps(dirty.as_json(), sort_keys=True) + "\n")


def dirty_nodes(site: SiteConfig) -> list[DirtyNode]:
    """Every node with a record, in order. Raises UpstreamFailed for a record that cannot be read."""
    try:
        names = os.listdir(site.jobs.nodes)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UpstreamFailed(f"{site.jobs.nodes} cannot be read: {oserrors.reason(error)}") from error
    nodes = sorted(named(name[:-5]) for name in names if name.endswith(".json") and not name.startswith("."))
    return [_read(_path(site, node)) for node in nodes]


def forget(site: SiteConfig, node: Node) -> None:
    """The node is clean and up again."""
    durable.remove(_path(site, node))


def forget_proved_clean(site: SiteConfig, nodes: Iterable[Node]) -> None:
    """A set-up succeeded on these nodes, so those that were left in service hold nothing of an earlier job."""
    if os.path.isdir(site.jobs.nodes):
        members = frozenset(nodes)
        for dirty in dirty_nodes(site):
            if dirty.in_service and dirty.node in members:
                forget(site, dirty.node)


def _read(path: str) -> DirtyNode:
    try:
        fields: dict[str, Any] = json.loads(durable.read_text(path))
        jobs = tuple(map(str, fields["jobs"]))
        left = fields["in_service"] is True
        return DirtyNode(named(fields["node"]), jobs, str(fields["reason"]), int(fields["since"]), left)
    except (OSError, ValueError, KeyError, TypeError, UsageError) as error:
        raise UpstreamFailed(f"{path} cannot be read: {printable(error)}") from error


def _path(site: SiteConfig, node: Node) -> str:
    return f"{site.jobs.nodes}/{node.name}.json"
