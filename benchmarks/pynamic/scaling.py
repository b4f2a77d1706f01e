"""One, four and sixteen nodes against one store with a bound on its operations: what the paper expected and did not
measure.

All nodes start the program at the same moment, with cold caches; the time is that until the last one is done. The
nodes of this machine share its cores, which the model knows.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks.pynamic import model, processor
from benchmarks.pynamic.image import Packing
from benchmarks.pynamic.nodes import Node, run_together
from benchmarks.pynamic.stores import Store


@dataclass(frozen=True)
class Together:
    """One way on so many nodes: seconds until the last is done, operations of all, what the model says, and the
    seconds of a core that all of it took: programs, the store's server, the kernel's threads."""

    name: str
    nodes: int
    seconds: float
    operations: int
    model: float
    processor: float


@dataclass(frozen=True)
class Forecast:
    """The model's seconds for many nodes, each with cores of its own, at a store with that bound."""

    name: str
    nodes: int
    bound: float
    seconds: float


def measure(
    nodes: Sequence[Node], store: Store, bound: float, images: Sequence[tuple[Packing, str]], numbers: Sequence[int],
    rounds: int, told: Callable[[str], None],
) -> tuple[list[Together], dict[str, model.Program]]:  # fmt: skip
    """Measure each image on each number of nodes; also what one node's start costs. `numbers` begins with 1.

    One node is measured in all rounds, since the model starts from it; several nodes, which take long, in half of them.
    """
    found: list[Together] = []
    programs: dict[str, model.Program] = {}
    for packing, image in images:
        for number in numbers:
            times = rounds if number == 1 else max(1, rounds // 2)
            taken = [_once(nodes[:number], store, packing, image) for _ in range(times)]
            seconds, used, reached = (statistics.median(values) for values in zip(*taken, strict=True))
            operations = round(reached)
            if number == 1:
                programs[packing.name] = model.Program(seconds, used, operations, bound)
            told(f"{number} nodes, {packing.name}: {seconds:.2f} s")
            machine = model.Machine(bound, os.cpu_count() or 1)
            modelled = model.seconds(programs[packing.name], machine, number)
            found.append(Together(packing.name, number, seconds, operations, modelled, used))
    return found, programs


def forecast(programs: dict[str, model.Program], bounds: Sequence[float], numbers: Sequence[int]) -> list[Forecast]:
    """The model where each node has its own cores."""
    return [
        Forecast(name, number, bound, model.seconds(program, model.Machine(bound), number))
        for bound in bounds
        for name, program in programs.items()
        for number in numbers
    ]


def _once(nodes: Sequence[Node], store: Store, packing: Packing, image: str) -> tuple[float, float, int]:
    """Seconds until the last node is done; the seconds of a core that all of it took; operations of all programs."""
    with ExitStack() as opened:
        served = opened.enter_context(store.opened(len(nodes)))
        for node, directory in zip(nodes, served.directories, strict=True):
            opened.enter_context(node.sees(directory))
            opened.enter_context(node.has(packing.format, image))
        before, used, threads = served.counts(), served.processor(), processor.kernel_threads()
        timings = run_together(nodes)
        after, used = served.counts(), served.processor() - used + processor.since(threads)
        assert before is not None
        assert after is not None
    last = max(each.begun + each.total for each in timings)
    used += sum(each.processor for each in timings)
    return last - min(each.begun for each in timings), used, (after - before).operations
