"""`udi.slotted.Slotted` against the frozen dataclass with slots that it stands in for."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from udi.nodes import Node, NodeSlots
from udi.slotted import Slotted, put


class Ours(Slotted):
    """Two fields."""

    __slots__ = ("first", "second")
    first: int
    second: str

    def __init__(self, first: int, second: str = "b") -> None:
        put(self, "first", first)
        put(self, "second", second)


@dataclasses.dataclass(frozen=True, slots=True)
class Usual:
    """The same, as `dataclasses` makes it."""

    first: int
    second: str = "b"


CALLS: list[Callable[[Any], Any]] = [
    lambda kind: kind(1),
    lambda kind: kind(second="c", first=1),
    lambda kind: kind(),
    lambda kind: kind(1) == kind(1),
    lambda kind: kind(1) == kind(2),
    lambda kind: kind(1) == (1, "b"),
    lambda kind: kind(1) < kind(2),
    lambda kind: hash(kind(1)),
    lambda kind: hash(kind([])),
    lambda kind: len({kind(1), kind(1), kind(2)}),
    lambda kind: copy.copy(kind(1)),
    lambda kind: copy.deepcopy(kind([1])),
    lambda kind: pickle.loads(pickle.dumps(kind(1, "c"))),
    lambda kind: vars(kind(1)),
]
CHANGES: list[Callable[[Any], Any]] = [
    lambda kind: setattr(kind(1), "first", 2),
    lambda kind: delattr(kind(1), "first"),
]


@pytest.mark.parametrize("call", CALLS)
def test_it_is_what_a_dataclass_is(call: Callable[[Any], Any]) -> None:
    assert _outcome(call, Ours).replace("Ours", "Usual") == _outcome(call, Usual)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", [Ours, Usual])
def test_it_stays_as_it_is(kind: Any, change: Callable[[Any], Any]) -> None:
    with pytest.raises(AttributeError, match="first"):
        change(kind)


def _outcome(call: Callable[[Any], Any], kind: Any) -> str:
    try:
        return repr(call(kind))
    except TypeError as error:
        return type(error).__name__


def test_nodes() -> None:
    """A node is found by its name; what has the same name and another number is another node."""
    nodes = {Node("nid00012", 12): 1, Node("login"): 2}
    assert (nodes[Node("nid00012", 12)], nodes[Node("login", None)]) == (1, 2)
    assert Node("nid00012", 12) != Node("nid00012") and Node("a") != "a"
    assert NodeSlots(Node("a"), 2) == NodeSlots(Node("a"), 2) != NodeSlots(Node("a"), 3)
    assert repr(NodeSlots(Node("a"), 2)) == "NodeSlots(node=Node(name='a', number=None), slots=2)"
