"""The benchmark of figure 3 from end to end, at its smallest: one round, two nodes, no figure of time is judged."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.pynamic import report
from benchmarks.pynamic.loops import READINGS
from benchmarks.pynamic.stores import memory

ROOT = Path(__file__).parents[2]


def measured(tmp_path: Path, *options: str) -> report.Report:
    """The smallest run, with these options."""
    if os.geteuid() != 0:
        pytest.skip("needs root: makes namespaces, mounts and loop devices")
    always = ["--size", "small", "--rounds", "1", "--no-peers", "--output", str(tmp_path / "out")]
    program = [sys.executable, "-m", "benchmarks.pynamic", *always, *options, "--cache", str(tmp_path / "cache")]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return report.read(tmp_path / "out/pynamic.json")


@pytest.mark.long
def test_the_whole_benchmark(tmp_path: Path) -> None:
    found = measured(tmp_path, "--nodes", "1,2")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "pynamic-nodes.svg", "pynamic-start.svg", "pynamic.json", "pynamic.md"
    ]  # fmt: skip
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
    assert all(each.processor > 0 for each in found.together)
    assert {each.nodes for each in found.forecast} >= {1000, 10000}
    assert not found.left_out


@pytest.mark.long
def test_file_systems_of_a_site_and_other_ways_to_read_an_image(tmp_path: Path) -> None:
    dropped = tmp_path / "dropped"
    with memory(tmp_path / "site") as site:
        stores = [f"--store={name}={site}" for name in ("one", "other")]
        found = measured(tmp_path, "--nodes=", "--loops", *stores, f"--drop=touch {dropped}")
        assert list(site.iterdir()) == []
    assert dropped.exists()
    assert not found.left_out
    names = {each.name for each in found.figures}
    packings = ("tree", "as udi-gateway makes it", "squashfs gzip:1 128K", "squashfs zstd:3 128K", "ext4")
    assert {f"{store}, {packing}" for store in ("one", "other") for packing in packings} <= names
    image = found.figure(found.image)
    assert {f"{image.name}, {reading.name}" for reading in READINGS} <= names
    direct = found.figure(f"{image.name}, direct I/O")
    assert image.operations_first
    assert direct.operations_first
    assert direct.operations_first > image.operations_first
    assert not found.together
