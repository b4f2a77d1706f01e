"""One cluster for all tests of whole jobs of a process. Each test finds it clean, and must leave it so."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

pytest.register_assert_rewrite("tests.slurm.cluster")

from slurmsim.cluster import PROGRAMS, Cluster  # noqa: E402
from tests.slurm.cluster import Slurm  # noqa: E402

S = TypeVar("S", bound=Slurm)
_FAULTS = (
    "test_components.py",
    "test_failures.py",
    "test_kills.py",
    "test_large_elsewhere.py",
    "test_munge_key.py",
    "test_scripts_outside.py",
    "test_workers_elsewhere.py",
)
_SOME = (
    "test_killed_prolog[mounted-program]",
    "test_a_controller_that_ends[running-KILL]",
    "test_a_node_that_cannot_be_cleaned_is_drained_and_comes_back",
    "test_an_image_is_made_on_a_node",
    "test_a_worker_that_is_lost_there[worker]",
)
"""Slurm takes its time after each fault, and a cluster of its own to come up, so only some are in every run;
`make test-faults` runs them all."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the faults that this run does not have."""
    if os.environ.get("UDI_ALL_FAULTS"):
        return
    out = [each for each in items if each.path.name in _FAULTS and each.name not in _SOME]
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [each for each in items if each not in out]


@contextmanager
def placed(kind: type[S]) -> Iterator[S]:
    """A cluster that is not up yet, in a directory that its users can enter; gone at the end."""
    if os.geteuid() != 0:
        pytest.skip("needs root: namespaces and mounts")
    missing = [name for name in PROGRAMS if not shutil.which(name, path="/usr/sbin:/usr/bin")]
    if missing:
        pytest.skip(f"needs Slurm and munge (Debian: slurmctld, slurmd, munge): no {', '.join(missing)}")
    directory = Path(tempfile.mkdtemp(prefix="slurmsim-"))
    slurm = kind(Cluster(directory))
    try:
        yield slurm
    finally:
        slurm.cluster.stop()
        shutil.rmtree(directory)


@contextmanager
def cluster_up(**more: object) -> Iterator[Slurm]:
    """One that is up."""
    with placed(Slurm) as slurm:
        slurm.up(**more)  # type: ignore[arg-type]
        yield slurm


@pytest.fixture(scope="session")
def standing() -> Iterator[Slurm]:
    """A cluster of two nodes that is up for the whole run."""
    with cluster_up() as slurm:
        yield slurm


@pytest.fixture
def slurm(standing: Slurm) -> Iterator[Slurm]:
    """The same cluster for one test; afterwards its nodes are idle and have nothing of any job."""
    yield standing
    standing.reset()
    standing.await_clean()
