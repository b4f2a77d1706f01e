"""Nodes by the names that people and the fan-out use: `nid00012`, folded as `nid[00012-00015]` in messages."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet, NodeSetException, RangeSet, RangeSetParseError

from udiroot.errors import UsageError, printable

_BARE = re.compile(r"[0-9]{1,9}(?:-[0-9]{1,9})?(?:,[0-9]{1,9}(?:-[0-9]{1,9})?)*")
_MOST = 1_000_000


def node_name(nid: int) -> str:
    """A node's host name: five digits, more where needed."""
    return f"nid{nid:05d}"


def folded(nids: Iterable[int]) -> str:
    """Nodes as one short text."""
    return str(NodeSet.fromlist([node_name(nid) for nid in sorted(set(nids))]))


def parse_nodes(text: str) -> tuple[int, ...]:
    """The nids that an operator names: `nid[00012-00013]`, `nid00012,nid00014` or `12-13,17`. Raises UsageError."""
    try:
        if _BARE.fullmatch(text):
            nids = {int(part) for part in RangeSet(text)}
        else:
            names = [str(name) for name in NodeSet(text, resolver=RESOLVER_NOGROUP)]
            nids = {int(name.removeprefix("nid")) for name in names if re.fullmatch(r"nid[0-9]{1,9}", name)}
            if len(nids) != len(names):
                raise ValueError("not all of them are nids")
    except (NodeSetException, RangeSetParseError, ValueError) as error:
        raise UsageError(f"not a list of nodes: '{printable(text)}'", "nid[00012-00013] or 12-13,17") from error
    if not nids or len(nids) > _MOST:
        raise UsageError(f"not a list of nodes: '{printable(text)}'", "nid[00012-00013] or 12-13,17")
    return tuple(sorted(nids))
