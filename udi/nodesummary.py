"""What many nodes said and how long they took, in a few lines that no number of nodes makes longer.

Most faults hit many nodes alike: the same words are one cause. Where more different texts come than lines are allowed,
texts that differ in numbers only (a process, a device, an address) are one cause too, shown by its first node's words;
and what is left after the most frequent causes is one line again.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Mapping

from udi.nodes import Node, in_brief
from udi.values import Frozen
from udiroot.errors import counted

MOST_CAUSES = 3
"""Lines for causes by themselves; one more stands for all others."""
_MAX_WORDS = 200
_MOST_SLOW = 4
_SLOW = 2.0
"""How many times the median a node must take to be called slow."""
_NUMBER = r"[0-9a-fA-F]*[0-9][0-9a-fA-F]*"


class Cause(Frozen):
    """What some nodes have in common. `kinds` is how many different texts that are, of which `words` is the first."""

    nodes: tuple[Node, ...]
    words: str
    kinds: int = 1

    @property
    def where(self) -> str:
        """The nodes, in a text without a blank."""
        return in_brief(self.nodes)

    def __str__(self) -> str:
        words = self.words if len(self.words) <= _MAX_WORDS else f"{self.words[: _MAX_WORDS - 3]}..."
        return words if self.kinds == 1 else f"{words} (and {counted(self.kinds - 1, 'text')} like it)"


def grouped(texts: Mapping[Node, str]) -> dict[str, list[Node]]:
    """The nodes that have the same text, by that text."""
    groups: dict[str, list[Node]] = {}
    for node in sorted(texts):
        groups.setdefault(texts[node], []).append(node)
    return groups


def causes(texts: Mapping[Node, str], most: int = MOST_CAUSES) -> list[Cause]:
    """At most `most` causes and one for all others, the most frequent first, those of equal frequency by their first
    node."""
    groups = grouped(texts)
    found = [Cause(tuple(nodes), words) for words, nodes in groups.items()]
    if len(found) > most:
        found = _alike(groups)
    found.sort(key=lambda cause: -len(cause.nodes))
    if len(found) <= most + 1:
        return found
    rest = found[most:]
    nodes = tuple(sorted(node for cause in rest for node in cause.nodes))
    return [*found[:most], Cause(nodes, rest[0].words, sum(cause.kinds for cause in rest))]


def _alike(groups: Mapping[str, list[Node]]) -> list[Cause]:
    """One cause for all texts that differ in numbers only."""
    kinds: dict[str, list[str]] = {}
    for words in groups:
        kinds.setdefault(re.sub(_NUMBER, "#", words), []).append(words)
    return [
        Cause(tuple(sorted(node for text in texts for node in groups[text])), texts[0], len(texts))
        for texts in kinds.values()
    ]


class Times(Frozen):
    """How long nodes took, in milliseconds. `slow` are the slowest, by name, and only those that took much longer than
    the others; of the rest only the slowest."""

    count: int
    median: int
    slow: tuple[tuple[Node, int], ...]

    @classmethod
    def of(cls, milliseconds: Mapping[Node, int]) -> Times:
        """Of at least one node."""
        middle = sorted(milliseconds.values())[len(milliseconds) // 2]
        slowest = heapq.nsmallest(_MOST_SLOW, milliseconds.items(), key=lambda item: (-item[1], item[0]))
        slow = tuple(item for item in slowest[1:] if item[1] > _SLOW * max(middle, 1))
        return cls(len(milliseconds), middle, (slowest[0], *slow))

    @property
    def most(self) -> int:
        """The time of the slowest node."""
        return self.slow[0][1]

    def __str__(self) -> str:
        slow = {str(node): milliseconds for node, milliseconds in self.slow}
        return times_in_words(slow, self.median) if self.count > 1 else f"{self.most} ms"

    def as_fields(self) -> dict[str, object]:
        """The same for a program."""
        slow = {str(node): milliseconds for node, milliseconds in self.slow}
        return {"median_ms": self.median, "max_ms": self.most, "slowest": slow}


def times_in_words(slowest: Mapping[str, int], median: int) -> str:
    """The slowest nodes with their milliseconds, and the median of all, for a person."""
    slow = ", ".join(f"{node} {milliseconds} ms" for node, milliseconds in slowest.items())
    return f"slowest {slow}; median {median} ms"


def in_words(reported: int, count: int, times: str, silent: str) -> str:
    """How many of a step's nodes reported and how long they took, and which did not, for a person."""
    parts = (f"{reported} of {counted(count, 'node')} reported", times, f"no answer: {silent}" if silent else "")
    return "; ".join(filter(None, parts))
