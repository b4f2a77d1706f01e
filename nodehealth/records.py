"""Why nodes are admindown by us: one JSON file a node under `jobs.nodes`, root's alone.

Written before the node is marked, removed after it is up again, so that no node of ours is ever down without a reason.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from udi.config import SiteConfig
from udi.durable import read_text, remove, write_text
from udiroot.errors import UpstreamFailed, printable


@dataclass(frozen=True)
class DirtyNode:
    """A node that stayed dirty: of which jobs (each may have left something), why, and since when (epoch seconds)."""

    nid: int
    jobs: tuple[str, ...]
    reason: str
    since: int


def record(site: SiteConfig, job: str, reasons: Mapping[int, str], now: int) -> None:
    """Keep why each node is dirty. A node that was dirty before keeps its first moment, and its earlier jobs."""
    before = {node.nid: node for node in dirty_nodes(site)}
    for nid, reason in reasons.items():
        earlier = before.get(nid)
        jobs = tuple(dict.fromkeys((*(earlier.jobs if earlier else ()), job)))
        node = DirtyNode(nid, jobs, printable(reason, 400), earlier.since if earlier else now)
        write_text(_path(site, nid), json.dumps(dataclasses.asdict(node), sort_keys=True) + "\n")


def dirty_nodes(site: SiteConfig) -> list[DirtyNode]:
    """Every node with a record, by nid. Raises UpstreamFailed for a record that cannot be read."""
    try:
        names = os.listdir(site.jobs.nodes)
    except FileNotFoundError:
        return []
    nids = sorted(int(name[:-5]) for name in names if name.endswith(".json") and name[:-5].isdecimal())
    return [_read(_path(site, nid)) for nid in nids]


def forget(site: SiteConfig, nid: int) -> None:
    """The node is clean and up again."""
    remove(_path(site, nid))


def _read(path: str) -> DirtyNode:
    try:
        fields: dict[str, Any] = json.loads(read_text(path))
        return DirtyNode(
            int(fields["nid"]), tuple(map(str, fields["jobs"])), str(fields["reason"]), int(fields["since"])
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UpstreamFailed(f"{path} cannot be read: {printable(error)}") from error


def _path(site: SiteConfig, nid: int) -> str:
    return f"{site.jobs.nodes}/{nid}.json"
