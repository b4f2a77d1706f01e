"""Why nodes are out of service because of us: one JSON file a node under `jobs.nodes`, for root only.

Written before the node is marked, removed after it is up again, so that no node is out of service because of us without
a reason, where there is a disk to write it to. A node that was left in service has one too, until it is recovered or a
job could be set up there.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from udi import durable, oserrors
from udi.config import SiteConfig
from udi.nodes import Node, named
from udi.records import modified, read_record, remove_record
from udi.values import Frozen, as_dict, replace
from udiroot.errors import UdiError, UpstreamFailed, UsageError, printable

_HEAD_BYTES = 4096
"""Where the key `in_service` is: keys are sorted, and it is the first."""


class DirtyNode(Frozen):
    """A node that stayed dirty: of which jobs (each may have left something), why, and since when (epoch seconds).

    `in_service` where we left it in service, since too many failed at once."""

    node: Node
    jobs: tuple[str, ...]
    reason: str
    since: int
    in_service: bool = False

    def as_json(self) -> dict[str, Any]:
        """The node by its name."""
        return as_dict(self) | {"node": self.node.name}


class NotRecorded(UpstreamFailed):
    """The reasons why nodes are dirty could not be kept; the nodes were taken out of service all the same."""


def record(site: SiteConfig, job: str, reasons: Mapping[Node, str], now: int, *, in_service: bool = False) -> None:
    """Keep why each node is dirty. A node that was dirty before keeps its first moment, and its earlier jobs; one that
    was taken out of service stays so. Raises NotRecorded, after all nodes were tried."""
    texts: dict[str, str] = {}
    for node, reason in reasons.items():
        earlier = _dirty(site, node)
        jobs = tuple(dict.fromkeys((*(earlier.jobs if earlier else ()), job)))
        since = earlier.since if earlier else now
        left = in_service and (earlier is None or earlier.in_service)
        dirty = DirtyNode(node, jobs, printable(reason, 400), since, left)
        texts[_path(site, node)] = json.dumps(dirty.as_json(), sort_keys=True) + "\n"
    try:
        durable.write_texts(texts)
    except UdiError:
        _record_each(texts)


def _record_each(texts: Mapping[str, str]) -> None:
    """As many of them as can be kept: all at once needs room for all."""
    lost: list[UdiError] = []
    for path, text in texts.items():
        try:
            durable.write_text(path, text)
        except UdiError as error:
            lost.append(error)
    if lost:
        raise NotRecorded(lost[0].message, "repair the disk of jobs.nodes")


def has_record(site: SiteConfig, node: Node) -> bool:
    """Whether it is on record, by whatever can be read of that, that the node is dirty."""
    return os.path.lexists(_path(site, node))


def dirty_nodes(site: SiteConfig) -> list[DirtyNode]:
    """Every node with a record, in order. A record that cannot be read still says that its node is dirty.

    Raises UpstreamFailed where the directory of the records cannot be read.
    """
    try:
        names = os.listdir(site.jobs.nodes)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UpstreamFailed(f"{site.jobs.nodes} cannot be read: {oserrors.reason(error)}") from error
    nodes = set[Node]()
    for name in names:
        with contextlib.suppress(UsageError):  # a name that is no node's, such as a file that is being written
            if name.endswith(".json"):
                nodes.add(named(name.removesuffix(".json")))
    return [dirty for node in sorted(nodes) if (dirty := _dirty(site, node))]


def count_dirty(site: SiteConfig) -> tuple[int, int]:
    """How many nodes with a record are out of service, and how many were left in service; a damaged record counts as
    one of the former. For each hook to ask: no record is taken apart, so that ten thousand take 0.15 s and not 5.

    Raises OSError where the directory of the records cannot be read.
    """
    out, left = 0, 0
    for name in os.listdir(site.jobs.nodes) if os.path.isdir(site.jobs.nodes) else ():
        if name.endswith(".json") and not name.startswith(durable.TEMPORARY):
            is_left = _says_in_service(f"{site.jobs.nodes}/{name}")
            left += is_left is True
            out += is_left is False
    return out, left


def _says_in_service(path: str) -> bool | None:
    """Whether the text of a record has that key set, which no string in it can look like; None where it is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError:
        return False
    try:
        return b'"in_service": true' in os.read(descriptor, _HEAD_BYTES)
    except OSError:
        return False
    finally:
        os.close(descriptor)


def forget(site: SiteConfig, node: Node) -> None:
    """The node is clean and up again. Raises UpstreamFailed."""
    remove_record(_path(site, node))


def forget_proved_clean(site: SiteConfig, nodes: Iterable[Node]) -> None:
    """A set-up succeeded on these nodes, so those that were left in service hold nothing of an earlier job."""
    if os.path.isdir(site.jobs.nodes):
        found = (_dirty(site, node) for node in nodes)
        remove_record(*(_path(site, dirty.node) for dirty in found if dirty and dirty.in_service))


def _dirty(site: SiteConfig, node: Node) -> DirtyNode | None:
    """What is on record of a node; None where nothing is."""
    path = _path(site, node)
    try:
        dirty = read_record(path, DirtyNode, f"udi-admin recover {node} cleans the node, and removes {path}")
    except FileNotFoundError:
        return None
    except UpstreamFailed as damaged:
        return DirtyNode(node, (), f"{damaged.message}; {damaged.hint}", modified(path))
    return replace(dirty, node=node)


def _path(site: SiteConfig, node: Node) -> str:
    return f"{site.jobs.nodes}/{node.name}.json"
