"""A cluster of hosts: ssh, and that the names of nodes are known here."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

from admin.checks.access import intruder
from admin.checks.check import Check, Finding, warning, wrong
from admin.checks.programs import Asked, versions
from clusters.settings import ClustersConfig
from udi.config import SiteConfig
from udi.nodes import folded, parse_named

_MOST_NAMES = 16
"""A resolver that does not answer takes seconds for each name."""


def trials(site: SiteConfig) -> list[Check]:
    """Whether it reaches nodes, only `--nodes` can tell."""
    clusters = site.table(ClustersConfig)
    ssh = Asked("clusters.ssh", clusters.ssh[0], ("-V",), (6, 0), "install OpenSSH's client")
    is_ssh = os.path.basename(ssh.program) == "ssh"  # what runs it for a site has versions of its own
    return [
        Check("clusters.names", "nodes have addresses here", lambda: _names(clusters)),
        Check("clusters.out_of_service", "only root changes the list of nodes out of service", lambda: _list(clusters)),
        *(versions(ssh) if is_ssh else ()),
    ]


def _list(clusters: ClustersConfig) -> Iterator[Finding]:
    path = clusters.out_of_service
    if os.path.lexists(path) and not os.path.isfile(path):
        yield wrong(f"clusters.out_of_service: {path} is not a regular file")
    elif whose := intruder(path):
        yield wrong(f"clusters.out_of_service: {path} must be root's alone, but {whose}", "choose another place")


def _names(clusters: ClustersConfig) -> Iterator[Finding]:
    """The first and last of the list: where these are known, the pattern is right."""
    nodes = parse_named(clusters.nodes)
    half = _MOST_NAMES // 2
    some = nodes if len(nodes) <= _MOST_NAMES else (*nodes[:half], *nodes[-half:])
    unknown = []
    for node in some:
        try:
            socket.getaddrinfo(node.name, None, type=socket.SOCK_STREAM)
        except OSError:
            unknown.append(node)
    if unknown:
        yield warning(
            f"clusters.nodes: no address of {folded(unknown)} is known here",
            "unless ssh knows it by its own configuration, add it to /etc/hosts or the name service",
        )
