"""What was measured, as JSON and as tables, and whether the goals were met."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.pynamic.rounds import Figures
from benchmarks.pynamic.scaling import Forecast, Together
from benchmarks.slowfs import Service

REFERENCE = "local disk, tree"
"""What ratios are taken to."""
CACHED_GOAL, FIRST_GOAL, OPERATIONS_GOAL = 1.2, 2.0, 10.0


@dataclass(frozen=True)
class Report:
    """Everything of one run of the benchmark."""

    program: str
    service: Service
    bound: float
    tree: str
    image: str
    figures: Sequence[Figures]
    together: Sequence[Together]
    forecast: Sequence[Forecast]
    left_out: Sequence[str]
    rounds: int

    def figure(self, name: str) -> Figures:
        """The figures of one way."""
        return next(each for each in self.figures if each.name == name)

    def write(self, path: Path) -> None:
        """As JSON, with what it was measured on."""
        values = {"machine": machine(), **dataclasses.asdict(self), "goals": [list(goal) for goal in goals(self)]}
        path.write_text(json.dumps(values, indent=1) + "\n")


def read(path: Path) -> Report:
    """A report that `write` made."""
    values: dict[str, Any] = json.loads(path.read_text())
    return Report(
        service=Service(**values["service"]),
        figures=[Figures(**each) for each in values["figures"]],
        together=[Together(**each) for each in values["together"]],
        forecast=[Forecast(**each) for each in values["forecast"]],
        **{name: values[name] for name in ("program", "bound", "tree", "image", "left_out", "rounds")},
    )


def machine() -> dict[str, str | int]:
    """What the figures depend on, of the machine that they come from."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 30
    return {"kernel": platform.release(), "cores": os.cpu_count() or 1, "memory in GiB": pages}


def goals(report: Report) -> list[tuple[str, float, float, bool]]:
    """Each goal: its words, the figure, the bound, whether it was met."""
    image, tree = report.figure(report.image), report.figure(report.tree)
    fewer = (tree.operations_first or 0) / max(1, image.operations_first or 1)
    return [
        ("cached, times local disk cached", image.ratio_cached, CACHED_GOAL, image.ratio_cached <= CACHED_GOAL),
        ("first, times local disk first", image.ratio_first, FIRST_GOAL, image.ratio_first <= FIRST_GOAL),
        ("operations, times fewer than the tree", fewer, OPERATIONS_GOAL, fewer >= OPERATIONS_GOAL),
    ]


@dataclass(frozen=True)
class Rows:
    """One table: what it shows, its columns, its rows."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def tables(report: Report) -> list[Rows]:
    """What was measured, and what the model says."""
    found = [_starts(report), _parts(report)]
    if report.together:
        found.append(_nodes(report))
    if report.forecast:
        found.append(_forecast(report))
    return found


def show(report: Report, console: Console) -> None:
    """Print the tables, and which goals were met."""
    for each in tables(report):
        table = Table(*each.columns, title=each.title)
        for row in each.rows:
            table.add_row(*row)
        console.print(table)
    for words, figure, bound, met in goals(report):
        console.print(f"{report.image}: {words}: {figure:.2f} (goal {bound:g}): {'met' if met else 'missed'}")
    for line in report.left_out:
        console.print(line)


def markdown(report: Report) -> str:
    """The tables for a document."""
    return "\n".join(_as_markdown(each) for each in tables(report))


def _as_markdown(table: Rows) -> str:
    lines = [table.columns, ("---",) * len(table.columns), *table.rows]
    return f"{table.title}:\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _starts(report: Report) -> Rows:
    title = f"{report.program}; {report.rounds} rounds, medians; times: of {REFERENCE} in the same round"
    columns = ("where", "first s", "times", "cached s", "times", "operations first", "no reads", "cached", "read MiB")
    rows = []
    for each in report.figures:
        read = "" if each.read_first is None else f"{each.read_first / (1 << 20):.1f}"
        counted = (each.operations_first, each.names_first, each.operations_cached)
        counts = ("" if count is None else str(count) for count in counted)
        times = (f"{each.first:.3f}", f"{each.ratio_first:.2f}", f"{each.cached:.3f}", f"{each.ratio_cached:.2f}")
        rows.append((each.name, *times, *counts, read))
    return Rows(title, columns, rows)


def _parts(report: Report) -> Rows:
    """The program's own parts, whose medians need not add up to that of the whole."""
    title = "seconds until the program's first line, of import, and of the visit to all modules; medians"
    columns = ("where", *(f"{which}: {part}" for which in ("first", "cached") for part in ("start", "import", "visit")))
    rows = [
        (each.name, *(f"{seconds:.3f}" for seconds in (
            each.start_first, each.imports_first, each.visit_first,
            each.start_cached, each.imports_cached, each.visit_cached,
        )))
        for each in report.figures
    ]  # fmt: skip
    return Rows(title, columns, rows)


def _nodes(report: Report) -> Rows:
    title = (
        f"nodes that start together at one store of {report.bound:,.0f} operations/s; this machine's cores are shared"
    )
    columns = ("image", "nodes", "s until the last is done", "model", "operations", "core s")
    rows = [
        (
            each.name,
            str(each.nodes),
            f"{each.seconds:.2f}",
            f"{each.model:.2f}",
            str(each.operations),
            f"{each.processor:.2f}",
        )
        for each in report.together
    ]
    return Rows(title, columns, rows)


def _forecast(report: Report) -> Rows:
    numbers = sorted({each.nodes for each in report.forecast})
    title = "model: seconds until the last of so many nodes is done, each with cores of its own"
    found: dict[tuple[str, float], dict[int, float]] = {}
    for each in report.forecast:
        found.setdefault((each.name, each.bound), {})[each.nodes] = each.seconds
    rows = [
        (name, f"{bound:,.0f}", *(f"{row[number]:.1f}" for number in numbers)) for (name, bound), row in found.items()
    ]
    return Rows(title, ("image", "store's operations/s", *(f"{number:,}" for number in numbers)), rows)
