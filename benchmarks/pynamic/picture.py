"""The pictures of docs/pynamic.md, by matplotlib.

matplotlib is needed for these alone, so it is an extra of the package (`pynamic`), and imported here only. Dark and
light, and a pattern on the light bars, tell first from cached in grey too; blue and orange are told apart by the
colour-blind.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.pynamic.report import Report
from udiroot.errors import SetupFailed

if TYPE_CHECKING:
    from benchmarks.pynamic.rounds import Figures

_DARK, _LIGHT = "#004c8c", "#f0b040"
_STYLES = (("o", "-", _DARK), ("s", "--", "#c05800"), ("^", ":", "#404040"))
_SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "pynamic",
    "svg.fonttype": "none",
    "font.size": 9.0,
    "axes.axisbelow": True,
}


def draw(report: Report, directory: Path) -> list[Path]:
    """Write the pictures; their paths. Raises SetupFailed without matplotlib."""
    try:
        import matplotlib
    except ImportError as error:
        raise SetupFailed("the pictures need matplotlib", "make pynamic installs it") from error
    matplotlib.use("svg")
    written = []
    with matplotlib.rc_context(_SETTINGS):
        written.append(_start(report, directory / "pynamic-start.svg"))
        if report.together:
            written.append(_nodes(report, directory / "pynamic-nodes.svg"))
    return written


def _start(report: Report, path: Path) -> Path:
    from matplotlib import pyplot

    shown = list(report.figures)
    counted = [each for each in shown if each.operations_first is not None]
    figure, (times, operations) = pyplot.subplots(
        1, 2, figsize=(10, 1.2 + 0.34 * len(shown)), layout="constrained", width_ratios=(3, 2), sharey=True
    )
    _bars(times, shown, lambda each: (each.first, each.cached), "{:.2f}")
    times.set_xlabel("seconds from start to end (log scale)")
    times.set_yticks(range(len(shown)), [each.name for each in shown])
    times.invert_yaxis()
    times.legend(loc="lower right")
    _bars(operations, shown, lambda each: (each.operations_first, each.operations_cached), "{:.0f}")
    operations.set_xlabel("operations that reached the store (log scale)")
    operations.set_title("" if len(counted) == len(shown) else "(where they can be counted)", fontsize=8)
    figure.suptitle(report.program)
    return _saved(figure, path)


def _bars(axes: Any, shown: Iterable[Figures], choose: Any, form: str) -> None:
    looks = (("first", _DARK, None), ("cached", _LIGHT, "////"))
    values = [choose(each) for each in shown]
    for which, (label, colour, hatch) in enumerate(looks):
        places = [number + (which - 0.5) * 0.4 for number in range(len(values))]
        widths = [pair[which] or 0 for pair in values]
        axes.barh(places, widths, 0.4, label=label, color=colour, hatch=hatch, edgecolor="black", linewidth=0.5)
        for place, pair in zip(places, values, strict=True):
            if pair[which] is not None:
                axes.text(pair[which] or 1, place, " " + form.format(pair[which]), va="center", fontsize=7)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.margins(x=0.15)
    axes.grid(axis="x", linewidth=0.3)


def _nodes(report: Report, path: Path) -> Path:
    from matplotlib import pyplot

    bounds = sorted({each.bound for each in report.forecast})
    figure, panels = pyplot.subplots(1, 1 + len(bounds), figsize=(10, 3.6), layout="constrained", squeeze=False)
    names = list(dict.fromkeys(each.name for each in report.together))
    for name, (marker, line, colour) in zip(names, _STYLES, strict=False):
        mine = [each for each in report.together if each.name == name]
        numbers = [each.nodes for each in mine]
        look = {"color": colour, "linewidth": 1.2}
        panels[0][0].plot(numbers, [each.seconds for each in mine], marker, color=colour, label=f"{name}, measured")
        panels[0][0].plot(numbers, [each.model for each in mine], line, label=f"{name}, model", **look)
        for axes, bound in zip(panels[0][1:], bounds, strict=True):
            ahead = [each for each in report.forecast if each.name == name and each.bound == bound]
            axes.plot([each.nodes for each in ahead], [each.seconds for each in ahead], line, label=name, **look)
            axes.set_title(f"model: {bound:,.0f} operations/s, own cores", fontsize=9)
    panels[0][0].set_title(f"measured: {report.bound:,.0f} operations/s, shared cores", fontsize=9)
    for axes in panels[0]:
        axes.set_xscale("log")
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter("")
        axes.set_xlabel("nodes")
        axes.grid(which="major", linewidth=0.3)
        axes.legend(fontsize=7)
    panels[0][0].set_xticks(sorted({each.nodes for each in report.together}))
    panels[0][0].set_ylabel("seconds until the last node is done")
    return _saved(figure, path)


def _saved(figure: Any, path: Path) -> Path:
    figure.savefig(path, metadata={"Date": None})
    return path
