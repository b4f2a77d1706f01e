"""Compute nodes: their names and numbers, how people write several of them, and how messages show several.

A Cray numbers its nodes, and the name follows from the number: `nid00012`. The hosts of a cluster have names alone. A
node's name is made here and nowhere else.

Numbers are folded here. ClusterShell, which folds names of any form and reads what people write, is imported where it
is called: it takes longer than all else that a hook does with its nodes.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence, Set

from udi.slotted import Slotted, put
from udiroot.errors import UsageError, printable

_NUMBERED = re.compile(r"nid([0-9]{1,9})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_BARE = r"[0-9]{1,9}(?:-[0-9]{1,9})?(?:,[0-9]{1,9}(?:-[0-9]{1,9})?)*"
_MOST = 1_000_000


class Node(Slotted):
    """A compute node; `number` where the machine numbers its nodes (on a Cray, the nid)."""

    __slots__ = ("name", "number")
    name: str
    number: int | None

    def __init__(self, name: str, number: int | None = None) -> None:
        put(self, "name", name)
        put(self, "number", number)

    def __eq__(self, other: object) -> bool:
        return type(other) is Node and self.name == other.name and self.number == other.number

    def __hash__(self) -> int:
        return hash(self.name)

    def __lt__(self, other: Node) -> bool:
        """By number where both have one, else by name."""
        if self.number is not None and other.number is not None:
            return self.number < other.number
        return self.name < other.name

    def __str__(self) -> str:
        return self.name


class NodeSlots(Slotted):
    """A node of a job, and how many slots for ranks the job has there."""

    __slots__ = ("node", "slots")
    node: Node
    slots: int

    def __init__(self, node: Node, slots: int) -> None:
        put(self, "node", node)
        put(self, "slots", slots)


def numbered(number: int) -> Node:
    """The node with a number: five digits in its name, more where needed."""
    return Node(f"nid{number:05d}", number)


def named(name: str) -> Node:
    """The node with a name. Raises UsageError for a text that cannot be one."""
    match = _NUMBERED.fullmatch(name)
    if match:
        return numbered(int(match[1]))
    if not _NAME.fullmatch(name):
        raise UsageError(f"not the name of a node: '{printable(name)}'")
    return Node(name)


def folded(nodes: Iterable[Node]) -> str:
    """Nodes as one short text: `nid[00012-00015]`."""
    every = set(nodes)
    numbers = _numbers(every)
    if numbers is not None:
        return _text_of(list(_ranges(numbers)))
    from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet

    return str(NodeSet.fromlist(sorted(node.name for node in every), resolver=RESOLVER_NOGROUP))


def in_brief(nodes: Iterable[Node], limit: int = 160) -> str:
    """Nodes as a text that no job makes long, without a blank: the first ranges of the folded text that `limit` bytes
    hold, and how many nodes there are beyond these, as in `nid[00012,00014],+9998`."""
    every = set(nodes)
    numbers = _numbers(every)
    return _names_in_brief(every, limit) if numbers is None else _numbers_in_brief(numbers, limit)


def _names_in_brief(nodes: Set[Node], limit: int) -> str:
    from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet

    every = NodeSet.fromlist(sorted(node.name for node in nodes), resolver=RESOLVER_NOGROUP)
    text = str(every)
    if len(text) <= limit:
        return text
    room = limit - len(f",+{len(every)}")
    shown = NodeSet(resolver=RESOLVER_NOGROUP)
    for part in every.contiguous():
        longer = shown | part
        if len(str(longer)) > room:
            break
        shown = longer
    return f"{shown},+{len(every) - len(shown)}" if shown else f"+{len(every)}"


def _numbers_in_brief(numbers: Sequence[int], limit: int) -> str:
    ranges = list(itertools.islice(_ranges(numbers), limit))  # more would not fit, since each takes bytes
    text = _text_of(ranges)
    if len(text) <= limit:
        return text
    room = limit - len(f",+{len(numbers)}")
    while ranges and len(_text_of(ranges)) > room:
        ranges.pop()
    left = len(numbers) - sum(count for _, count in ranges)
    return f"{_text_of(ranges)},+{left}" if ranges else f"+{left}"


def _numbers(nodes: Set[Node]) -> list[int] | None:
    """The numbers in order, where all nodes have one."""
    numbers = [node.number for node in nodes if node.number is not None]
    return sorted(numbers) if len(numbers) == len(nodes) else None


def _ranges(numbers: Sequence[int]) -> Iterator[tuple[str, int]]:
    """Each run of numbers that follow each other as a text, and how many they are."""
    for _, run in itertools.groupby(enumerate(numbers), key=lambda each: each[1] - each[0]):
        members = [number for _, number in run]
        first, last = (f"{number:05d}" for number in (members[0], members[-1]))
        yield (first if first == last else f"{first}-{last}"), len(members)


def _text_of(ranges: Sequence[tuple[str, int]]) -> str:
    if not ranges:
        return ""
    texts = [text for text, _ in ranges]
    return f"nid{texts[0]}" if len(ranges) == 1 and ranges[0][1] == 1 else f"nid[{','.join(texts)}]"


def parse_numbered(text: str) -> tuple[Node, ...]:
    """The numbered nodes that a person names: `nid[00012-00013]`, `nid00012,nid00014` or `12-13,17`.

    Raises UsageError.
    """
    if not re.fullmatch(_BARE, text):
        nodes = parse_named(text)
        if any(node.number is None for node in nodes):
            raise _not_nodes(text)
        return nodes
    from ClusterShell.NodeSet import RangeSet, RangeSetParseError

    try:
        ranges = RangeSet(text)
    except RangeSetParseError as error:
        raise _not_nodes(text) from error
    if len(ranges) > _MOST:
        raise _not_nodes(text)
    return tuple(numbered(number) for number in sorted({int(part) for part in ranges}))


def parse_named(text: str) -> tuple[Node, ...]:
    """The nodes that a person names: `c[001-016]`, `c001,c004`. Raises UsageError."""
    from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet, NodeSetException

    try:
        found = NodeSet(text, resolver=RESOLVER_NOGROUP)
    except (NodeSetException, ValueError) as error:
        raise _not_nodes(text) from error
    if not 0 < len(found) <= _MOST:
        raise _not_nodes(text)
    try:
        return tuple(sorted({named(str(name)) for name in found}))
    except UsageError as error:
        raise _not_nodes(text) from error


def _not_nodes(text: str) -> UsageError:
    return UsageError(f"not a list of nodes: '{printable(text)}'", "write nid[00012-00013], 12-13,17 or host[1-4]")
