"""Slurm's lists of hosts: `n[1-2,05-07],m` and `r[1-2]n[1-3]`, in the order in which Slurm counts a job's nodes.

Written here, since a Prolog would wait for another program, and ClusterShell sorts what it expands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from udi.platform import Host
from udiroot.errors import UsageError, printable

_MOST = 1_000_000
"""Hosts of a list."""
_ITEM = re.compile(r"(?:[^,\[]|\[[^\]]*\]?)+")
_PIECE = re.compile(r"[A-Za-z0-9._-]+|\[[0-9,-]+\]")
_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")
_COUNT = re.compile(r"([1-9][0-9]{0,8})(?:\(x([1-9][0-9]{0,8})\))?")


def expand(text: str) -> tuple[str, ...]:
    """The hosts in a list. Raises UsageError."""
    found: list[str] = []
    items = _ITEM.findall(text)
    for item in items:
        found += _expanded(item, text, _MOST - len(found))
    if not found or ",".join(items) != text:
        raise _not_hosts(text)
    return tuple(found)


def counts(text: str) -> tuple[int, ...]:
    """Slurm's numbers for each node of a list, `2(x3),1`, as one number a node. Raises UsageError."""
    found: list[int] = []
    for item in text.split(","):
        match = _COUNT.fullmatch(item)
        times = int(match[2] or 1) if match else _MOST
        if match is None or len(found) + times > _MOST:
            raise UsageError(f"not numbers for nodes: '{printable(text)}'")
        found += [int(match[1])] * times
    return tuple(found)


def hosts(nodes: str, cpus: str) -> tuple[Host, ...]:
    """A job's hosts with as many slots as it has CPUs there; one each where Slurm counts other nodes than it lists: a
    Prolog that runs before a node's first step gets the nodes of that step. Raises UsageError."""
    names, slots = expand(nodes), counts(cpus) if cpus else ()
    if len(names) != len(slots):
        slots = (1,) * len(names)
    return tuple(Host(name, count) for name, count in zip(names, slots, strict=True))


def _expanded(item: str, text: str, room: int) -> list[str]:
    """One item of a list: each of its ranges multiplies the names."""
    names = [""]
    pieces = _PIECE.findall(item)
    if "".join(pieces) != item:
        raise _not_hosts(text)
    for piece in pieces:
        ends = list(_numbers(piece[1:-1], text)) if piece.startswith("[") else [piece]
        if len(names) * len(ends) > room:
            raise _not_hosts(text)
        names = [name + end for name in names for end in ends]
    return names


def _numbers(ranges: str, text: str) -> Iterator[str]:
    """The numbers in brackets, as wide as a range's first one is written."""
    count = 0
    for each in ranges.split(","):
        match = _RANGE.fullmatch(each)
        if match is None:
            raise _not_hosts(text)
        first, last = int(match[1]), int(match[2] or match[1])
        count += last - first + 1
        if last < first or count > _MOST:
            raise _not_hosts(text)
        yield from (f"{number:0{len(match[1])}d}" for number in range(first, last + 1))


def _not_hosts(text: str) -> UsageError:
    return UsageError(f"not a list of hosts: '{printable(text)}'")
