"""The network of the nodes: they reach each other by name, two machines share nothing, and the host has none of it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from udiroot.errors import SetupFailed
from xcsim.network import Network, hosts
from xcsim.node import ComputeNode, NodeFiles

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")


def machine(state: Path, nids: list[int]) -> tuple[Network, list[ComputeNode]]:
    network = Network(state).start()
    files = NodeFiles(state / "nodes", network=network, hosts=hosts(nids))
    return network, [ComputeNode(nid, files).start() for nid in nids]


def links() -> list[str]:
    """Those of the host's interfaces that are a network's of xcsim; others may come and go."""
    return ours(subprocess.run(["/bin/ip", "link"], capture_output=True, text=True, check=True).stdout)


def ours(table: str) -> list[str]:
    return re.findall(r"^[0-9]+: (aries|ipogif0|[0-9]+\.[0-9]+)[@:]", table, re.MULTILINE)


def ping(node: ComputeNode, name: str) -> bool:
    return node.run(["/bin/busybox", "ping", "-c", "1", "-W", "1", name]).returncode == 0


def test_two_machines_side_by_side(tmp_path: Path) -> None:
    first, [one, two] = machine(tmp_path / "a", [12, 300])
    second, [other, third] = machine(tmp_path / "b", [12, 13])
    try:
        assert ping(one, "nid00300") and ping(two, "nid00012") and ping(other, "10.128.0.14")
        assert not ping(one, "10.128.0.14")
        assert one.run(["/bin/hostname"]).stdout == "nid00012\n"
        assert links() == []
        assert ours(one.run(["/bin/busybox", "ip", "link"]).stdout) == ["ipogif0"]
        third.stop()
        assert third.start().running
        assert ping(other, "nid00013")
        assert first.start() == first
        assert ping(one, "nid00300")
    finally:
        for node in (one, two, other, third):
            node.stop()
        for network in (first, second):
            network.stop()
            network.stop()
    assert links() == []
    with pytest.raises(SetupFailed, match="the network is not up"):
        first.join(12, os.getpid())
