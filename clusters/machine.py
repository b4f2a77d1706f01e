"""A cluster as `udi.platform.Machine`: hosts reached by ssh, and a list of those out of service.

The workload manager names the hosts of a job; those that are in the cluster's list are the job's compute nodes.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from clusters.fanout import fan_out
from clusters.out_of_service import OutOfServiceList
from clusters.settings import ClustersConfig
from udi.command import Deadline
from udi.config import SiteConfig
from udi.fanout import Answers, FanOutResult
from udi.nodes import Node, NodeSlots, parse_named
from udi.oserrors import reason
from udi.platform import IN_SERVICE, OUT_OF_SERVICE, Allocation, Host, NodeState
from udiroot.errors import ConfigError, UpstreamFailed, UsageError

if TYPE_CHECKING:
    from udi.sitefiles import Renderer, SiteFile


class Cluster:
    """The cluster that the table `[clusters]` describes."""

    def __init__(self, site: SiteConfig) -> None:
        """Raises ConfigError where `[clusters]` is wrong or names no nodes."""
        self._settings = site.table(ClustersConfig)
        try:
            nodes = parse_named(self._settings.nodes)
        except UsageError as error:
            raise ConfigError(f"{site.path}: clusters.nodes: {error.message}", error.hint) from error
        self._nodes = {node.name: node for node in nodes}
        self._by_label: dict[str, list[Node]] = {}
        for node in nodes:
            self._by_label.setdefault(_first_label(node.name), []).append(node)
        self._list = OutOfServiceList(self._settings.out_of_service)

    @property
    def name(self) -> str:
        return ClustersConfig.NAME

    @property
    def fanout_deadline(self) -> int:
        return self._settings.fanout_deadline

    @property
    def command_deadline(self) -> int:
        return self._settings.command_deadline

    def nodes_of(self, job: str, hosts: Sequence[Host], deadline: Deadline, allocation: str = "") -> Allocation:
        """The job's hosts that are nodes of the cluster, in order; others (a login host) are passed over."""
        slots: dict[Node, int] = {}
        for host in hosts:
            node = self._node(host.name)
            if node is not None:
                slots[node] = slots.get(node, 0) + host.slots
        return Allocation(tuple(NodeSlots(node, count) for node, count in slots.items()))

    def run(
        self, nodes: Sequence[Node], command_line: str, nonce: str, deadline: Deadline, directory: str = ""
    ) -> FanOutResult:
        return fan_out(self._settings, Answers(nodes, self.identity, nonce), command_line, deadline)

    def take_out_of_service(self, nodes: Sequence[Node], reasons: Mapping[Node, str], deadline: Deadline) -> None:
        if nodes:
            self._list.add(nodes, reasons, deadline)

    def bring_into_service(self, nodes: Sequence[Node], deadline: Deadline) -> None:
        if nodes:
            self._list.remove(nodes, deadline)

    def states(self, nodes: Sequence[Node], deadline: Deadline) -> dict[Node, NodeState]:
        out = self._list.read()
        known = [node for node in nodes if node.name in self._nodes or node in out]
        return {node: NodeState(node, OUT_OF_SERVICE if node in out else IN_SERVICE) for node in known}

    def parse_nodes(self, text: str) -> tuple[Node, ...]:
        return parse_named(text)

    def identity(self, node: Node) -> str:
        """The host's own name; it may report it with or without the domain (`udi.fanout.Answers`)."""
        return node.name

    def address(self, node: Node) -> str:
        """The host's first address, IPv4 before IPv6."""
        try:
            found = socket.getaddrinfo(node.name, None, type=socket.SOCK_STREAM)
        except OSError as error:
            raise UpstreamFailed(f"host {node} has no address: {reason(error)}") from error
        ordered = sorted(found, key=lambda entry: entry[0] != socket.AF_INET)
        return str(ordered[0][4][0])

    def identity_file(self) -> str:
        return ""

    def programs(self) -> Mapping[str, str]:
        return {"clusters.ssh": self._settings.ssh[0]}

    def site_files(self, render: Renderer) -> Sequence[SiteFile]:
        return ()

    def _node(self, host: str) -> Node | None:
        """The node that a workload manager's name means: the same name, or the same first label where one node only has
        it."""
        if host in self._nodes:
            return self._nodes[host]
        same = self._by_label.get(_first_label(host), [])
        return same[0] if len(same) == 1 else None


def _first_label(name: str) -> str:
    return name.split(".", 1)[0]
