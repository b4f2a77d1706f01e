"""What the benchmark of figure 3 makes of its runs: medians, ratios, goals, JSON, tables and pictures."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from benchmarks.pynamic import peers, picture, report, rounds, scaling
from benchmarks.pynamic.image import TREE
from benchmarks.pynamic.nodes import Timing, timing
from benchmarks.pynamic.report import REFERENCE, Report
from benchmarks.pynamic.rounds import Sample
from benchmarks.pynamic.stores import Direct
from benchmarks.slowfs import Counts, Service
from udiroot.errors import SetupFailed

TOLD = '{"started": 10.5, "imported": 12.5, "ended": 12.75, "modules": 3, "calls": 99}\n'


def sample(first: float, cached: float, operations: int | None = None) -> Sample:
    counts = None if operations is None else Counts({"read": operations - 1, "open": 1}, 4096 * operations)
    none = None if operations is None else Counts({}, 0)
    one, other = (Timing(0, seconds / 4, seconds / 2, seconds / 4, 5) for seconds in (first, cached))
    return Sample(0.1, one, other, counts, none)


def made() -> Report:
    taken = {
        REFERENCE: [sample(1, 0.5), sample(2, 1), sample(9, 3)],
        "store, tree": [sample(10, 1, 2000), sample(10, 2, 2002), sample(10, 3, 2001)],
        "store, image": [sample(1.5, 0.5, 100), sample(4, 1.1, 100), sample(9, 3, 100)],
    }
    return Report(
        program="a program",
        service=Service(),
        bound=2000,
        tree="store, tree",
        image="store, image",
        figures=rounds.figures(taken, REFERENCE),
        together=[
            scaling.Together(name, nodes, nodes * 2.0, 100, nodes * 2.1, nodes * 1.5)
            for name in "ab" for nodes in (1, 4)
        ],
        forecast=[
            scaling.Forecast(name, nodes, bound, nodes * 0.1)
            for name in "ab" for nodes in (1, 10_000) for bound in (2000.0, 50000.0)
        ],
        left_out=["left out: something"],
        rounds=3,
    )  # fmt: skip


def test_a_timing_is_what_the_program_printed() -> None:
    found = timing(10.0, TOLD, 1.5)
    assert found == Timing(10.0, 0.5, 2.0, 0.25, 99, 1.5)
    assert found.total == 2.75


@pytest.mark.parametrize(
    "text", ["", "Traceback", "[]", "{}", TOLD.replace('"ended"', '"end"'), TOLD.replace("99", "")]
)
def test_a_program_that_printed_something_else_did_not_run(text: str) -> None:
    with pytest.raises(SetupFailed, match="did not run"):
        timing(10.0, text)


def test_figures_are_medians_and_ratios_are_taken_within_a_round() -> None:
    found = made().figure("store, image")
    assert (found.first, found.cached) == (4, 1.1)
    assert found.ratio_first == 1.5  # of 1.5, 2 and 1
    assert found.ratio_cached == 1.0
    assert (found.operations_first, found.operations_cached, found.read_first) == (100, 0, 409600)
    assert made().figure("store, tree").operations_first == 2001
    assert made().figure("store, tree").names_first == 1
    assert (found.start_first, found.imports_first, found.visit_first) == (1, 2, 1)
    assert (found.start_cached, found.imports_cached, found.visit_cached) == (0.275, 0.55, 0.275)
    assert made().figure(REFERENCE).operations_first is made().figure(REFERENCE).names_first is None


def test_goals() -> None:
    assert [(figure, met) for _, figure, _, met in report.goals(made())] == [(1.0, True), (1.5, True), (20.01, True)]
    worse = dataclasses.replace(made(), image="store, tree")
    assert [met for *_, met in report.goals(worse)] == [False, False, False]


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = made()
    written.write(tmp_path / "pynamic.json")
    assert report.read(tmp_path / "pynamic.json") == written
    assert set(json.loads((tmp_path / "pynamic.json").read_text())["machine"]) == {"kernel", "cores", "memory in GiB"}


def test_tables_say_everything() -> None:
    out = io.StringIO()
    report.show(made(), Console(file=out, width=200))
    text = out.getvalue()
    for words in ("store, image", "20.01 (goal 10): met", "left out: something", "model", "10,000", "50,000", "1000.0"):
        assert words in text


def test_tables_for_a_document() -> None:
    text = report.markdown(made())
    assert "| store, image | 4.000 | 1.50 | 1.100 | 1.00 | 100 | 1 | 0 | 0.4 |\n" in text
    assert "| store, image | 1.000 | 2.000 | 1.000 | 0.275 | 0.550 | 0.275 |\n" in text
    assert "| a | 4 | 8.00 | 8.40 | 100 | 6.00 |\n" in text
    assert "| b | 50,000 | 0.1 | 1000.0 |\n" in text


def test_pictures_name_every_way_and_are_the_same_each_time(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    first = [path.read_bytes() for path in picture.draw(made(), tmp_path)]
    assert first == [path.read_bytes() for path in picture.draw(made(), tmp_path)]
    texts = ["".join(ElementTree.fromstring(each).itertext()) for each in first]
    assert len(texts) == 2
    for name in (REFERENCE, "store, tree", "store, image", "first", "cached"):
        assert name in texts[0]
    for words in ("a, measured", "b, model", "model: 50,000 operations/s"):
        assert words in texts[1]


def test_runs_that_did_not_do_the_same_are_no_measurement() -> None:
    class Way:
        name = "odd"

        def sample(self) -> Sample:
            taken = sample(1, 1)
            return dataclasses.replace(taken, cached=dataclasses.replace(taken.cached, calls=6))

    with pytest.raises(AssertionError, match="did not do the same"):
        rounds.measure([Way()], 1, lambda line: None)


def test_a_way_that_does_not_work_is_left_out_with_a_line() -> None:
    class Way:
        def __init__(self, name: str) -> None:
            self.name = name

        def sample(self) -> Sample:
            if self.name == "odd":
                raise SetupFailed("no direct I/O there")
            return sample(1, 1)

    told: list[str] = []
    assert [way.name for way in rounds.working(map(Way, ("one", "odd", "other")), told.append)] == ["one", "other"]
    assert told == ["left out: odd: no direct I/O there"]


def test_peers_that_are_not_there_are_left_out_with_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    told: list[str] = []
    assert peers.charliecloud([(Direct("disk", tmp_path), TREE, "tree")], tmp_path / "mount", told.append) == []
    with peers.docker(tmp_path, tmp_path / "docker", told.append) as ways:
        assert ways == []
    assert [line.split(" is ")[0] for line in told] == ["left out: ch-run", "left out: docker"]
