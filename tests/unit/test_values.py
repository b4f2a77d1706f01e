"""`udi.values.Frozen` against the dataclasses that it stands in for."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from udi import values
from udi.values import Frozen, field


class Pair(Frozen):
    """Ours."""

    first: int
    second: str = "b"
    rest: dict[str, int] = field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Usual:
    """The same, as `dataclasses` makes it."""

    first: int
    second: str = "b"
    rest: dict[str, int] = dataclasses.field(default_factory=dict)


class Named(Frozen, kw_only=True):
    """Keywords only, with text and order of its own."""

    size: int
    name: str = ""

    def __str__(self) -> str:
        return self.name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Named) and self.size == other.size

    def __hash__(self) -> int:
        return self.size


CALLS: list[Callable[[Any], Any]] = [
    lambda kind: kind(1),
    lambda kind: kind(1, "c", {"x": 1}),
    lambda kind: kind(second="c", first=1),
    lambda kind: kind(1, rest={}),
    lambda kind: kind(),
    lambda kind: kind(1, first=2),
    lambda kind: kind(1, "b", {}, 4),
    lambda kind: kind(1, fourth=4),
    lambda kind: dataclasses.replace(kind(1, "c"), second="d"),
    lambda kind: dataclasses.replace(kind(1), third=3),
    lambda kind: setattr(kind(1), "first", 2),
    lambda kind: setattr(kind(1), "other", 2),
    lambda kind: delattr(kind(1), "first"),
    lambda kind: copy.deepcopy(kind(1, rest={"x": 1})),
    lambda kind: hash(kind(1, "b", ())),
    lambda kind: hash(kind(1)),
    lambda kind: kind(1) == kind(1),
    lambda kind: kind(1) == kind(2),
    lambda kind: kind(1) == (1, "b", {}),
    lambda kind: kind(1) < kind(2),
    lambda kind: [(spec.name, spec.type) for spec in dataclasses.fields(kind)],
    lambda kind: dataclasses.asdict(kind(1, rest={"x": 1})),
    lambda kind: kind(1).rest is kind(1).rest,
    lambda kind: kind.__match_args__,
]


@pytest.mark.parametrize("call", CALLS)
def test_it_is_what_a_dataclass_is(call: Callable[[Any], Any]) -> None:
    assert _outcome(call, Pair).replace("Pair", "Usual") == _outcome(call, Usual)


def _outcome(call: Callable[[Any], Any], kind: Any) -> str:
    try:
        return repr(call(kind))
    except (TypeError, AttributeError) as error:
        return type(error).__name__


def test_what_a_class_has_itself_stays() -> None:
    one, other = Named(size=1, name="a"), Named(size=1, name="b")
    assert one == other and str(other) == "b" and len({one, other}) == 1
    with pytest.raises(TypeError):
        Named(1)  # type: ignore[call-arg]


def test_pickled() -> None:
    assert pickle.loads(pickle.dumps(Pair(1, "c", {"x": 1}))) == Pair(1, "c", {"x": 1})


class Holder(Frozen):
    """Values within values."""

    pair: Pair
    many: tuple[Pair, ...] = ()
    named: dict[str, Pair] = field(default_factory=dict)


def test_what_dataclasses_says_of_one_is_what_is_said_here() -> None:
    one = Holder(Pair(1), (Pair(2),), {"x": Pair(3, rest={"y": 1})})
    assert values.as_dict(one) == dataclasses.asdict(one)
    assert values.replace(one, many=()) == dataclasses.replace(one, many=())
    ours, theirs = values.fields(Pair), dataclasses.fields(Pair)
    assert [(each.name, each.type) for each in ours] == [(each.name, each.type) for each in theirs]
    assert [each.is_required for each in ours] == [
        each.default is each.default_factory is dataclasses.MISSING for each in theirs
    ]
    assert dataclasses.is_dataclass(Pair) and values.is_frozen(Pair) and not values.is_frozen(Usual)
    assert not dataclasses.is_dataclass(Frozen)


def test_what_would_not_be_as_it_reads_is_refused() -> None:
    with pytest.raises(TypeError):

        class Based(Pair):
            other: int = 1

    with pytest.raises(TypeError):

        class Listed(Frozen):
            items: list[int] = []  # noqa: RUF012 - that is what is refused

    with pytest.raises(TypeError):

        class Foreign(Frozen):
            items: list[int] = dataclasses.field(default_factory=list)
