"""The measurement: every way takes its turn in every round, first with cold caches and then with warm ones.

A round's figures are subject to the same load of the machine, so a ratio is taken within a round, and the median of
the rounds' ratios is reported.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from benchmarks.pynamic.image import Packing
from benchmarks.pynamic.loops import Reading
from benchmarks.pynamic.nodes import Node, Timing
from benchmarks.pynamic.stores import Store
from benchmarks.slowfs import Counts
from udiroot.errors import UdiError


@dataclass(frozen=True)
class Sample:
    """One round of one way: the seconds of set-up, the first and the cached run, and what reached the store in each.

    The first run's counts include the set-up. Counts are None where nobody can tell.
    """

    setup: float
    first: Timing
    cached: Timing
    first_counts: Counts | None
    cached_counts: Counts | None


class Way(Protocol):
    """Something that can be measured."""

    @property
    def name(self) -> str:
        """For tables; no two ways have the same."""

    def sample(self) -> Sample:
        """One round. Raises SetupFailed."""


@dataclass(frozen=True)
class OnNode:
    """An image of a store, set up by setupRoot on a compute node; read as setupRoot has it, or otherwise."""

    node: Node
    store: Store
    packing: Packing
    image: str
    reading: Reading | None = None

    @property
    def name(self) -> str:
        return ", ".join((self.store.name, self.packing.name, *([self.reading.name] if self.reading else [])))

    def sample(self) -> Sample:
        with self.store.opened(1) as opened, self.node.sees(opened.directories[0]):
            begun = opened.counts()
            with self.node.has(self.packing.format, self.image) as setup:
                if self.reading:
                    self.reading.set(opened.directories[0] / self.image)
                first = self.node.run()
                middle = opened.counts()
                cached = self.node.run()
                ended = opened.counts()
        return Sample(setup, first, cached, between(begun, middle), between(middle, ended))


@dataclass(frozen=True)
class Figures:
    """The medians of one way: seconds, ratios to the reference in the same rounds, operations and bytes."""

    name: str
    rounds: int
    setup: float
    first: float
    cached: float
    start_first: float
    start_cached: float
    imports_first: float
    imports_cached: float
    visit_first: float
    visit_cached: float
    ratio_first: float
    ratio_cached: float
    operations_first: int | None
    operations_cached: int | None
    read_first: int | None
    kinds_first: Mapping[str, int] | None

    @property
    def names_first(self) -> int | None:
        """Operations of the first run that are no reads of data: what a metadata server gets."""
        return None if self.kinds_first is None else sum(self.kinds_first.values()) - self.kinds_first.get("read", 0)


def working(ways: Iterable[Way], told: Callable[[str], None]) -> list[Way]:
    """Those that work here, by one round that does not count; `told` gets a line for each that does not."""
    found = []
    for way in ways:
        try:
            way.sample()
            found.append(way)
        except UdiError as error:
            told(f"left out: {way.name}: {error}")
    return found


def measure(ways: Sequence[Way], rounds: int, told: Callable[[str], None]) -> dict[str, list[Sample]]:
    """Every way once in every round; `told` gets a line for each round. Every run must have called as many functions.

    Raises SetupFailed.
    """
    taken: dict[str, list[Sample]] = {way.name: [] for way in ways}
    for number in range(rounds):
        for way in ways:
            taken[way.name].append(way.sample())
        told(f"round {number + 1} of {rounds} done")
    calls = {run.calls for samples in taken.values() for sample in samples for run in (sample.first, sample.cached)}
    assert len(calls) == 1, f"the runs did not do the same: {calls}"
    return taken


def figures(taken: Mapping[str, Sequence[Sample]], reference: str) -> list[Figures]:
    """The medians of all ways; `reference` is the one that ratios are taken to."""
    base = taken[reference]
    return [_figures(name, samples, base) for name, samples in taken.items()]


def _figures(name: str, samples: Sequence[Sample], base: Sequence[Sample]) -> Figures:
    def middle(choose: Callable[[Sample], float]) -> float:
        return statistics.median(map(choose, samples))

    def ratio(choose: Callable[[Sample], float]) -> float:
        return statistics.median(choose(one) / choose(other) for one, other in zip(samples, base, strict=True))

    first = [sample.first_counts for sample in samples if sample.first_counts]
    cached = [sample.cached_counts for sample in samples if sample.cached_counts is not None]
    return Figures(
        name,
        len(samples),
        middle(lambda sample: sample.setup),
        middle(lambda sample: sample.first.total),
        middle(lambda sample: sample.cached.total),
        middle(lambda sample: sample.first.start),
        middle(lambda sample: sample.cached.start),
        middle(lambda sample: sample.first.imports),
        middle(lambda sample: sample.cached.imports),
        middle(lambda sample: sample.first.visit),
        middle(lambda sample: sample.cached.visit),
        ratio(lambda sample: sample.first.total),
        ratio(lambda sample: sample.cached.total),
        round(statistics.median(counts.operations for counts in first)) if first else None,
        round(statistics.median(counts.operations for counts in cached)) if cached else None,
        round(statistics.median(counts.read for counts in first)) if first else None,
        first[0].kinds if first else None,
    )


def between(earlier: Counts | None, later: Counts | None) -> Counts | None:
    """What came in between two readings of a counter."""
    return None if earlier is None or later is None else later - earlier
