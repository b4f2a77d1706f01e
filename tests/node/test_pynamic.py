"""The benchmark of figure 3 from end to end, at its smallest: one round, two nodes, no figure of time is judged."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.pynamic import report

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_the_whole_benchmark(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: makes namespaces, mounts and loop devices")
    options = ["--size", "small", "--rounds", "1", "--nodes", "1,2", "--no-peers", "--output", str(tmp_path / "out")]
    program = [sys.executable, "-m", "benchmarks.pynamic", *options, "--cache", str(tmp_path / "cache")]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "pynamic-nodes.svg", "pynamic-start.svg", "pynamic.json", "pynamic.md"
    ]  # fmt: skip
    found = report.read(tmp_path / "out/pynamic.json")
    tree, image = found.figure(found.tree), found.figure(found.image)
    assert tree.operations_first
    assert image.operations_first
    assert image.operations_first < tree.operations_first
    assert tree.operations_cached  # each open is one
    assert image.operations_cached == 0
    assert [(each.name, each.nodes) for each in found.together] == [
        ("tree", 1), ("tree", 2), ("as udi-gateway makes it", 1), ("as udi-gateway makes it", 2)
    ]  # fmt: skip
    assert found.together[1].operations == 2 * found.together[0].operations
    assert {each.nodes for each in found.forecast} >= {1000, 10000}
    assert not found.left_out
