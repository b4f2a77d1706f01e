"""Fixtures of the tests over ssh: they need root, since they make namespaces, mounts and loop devices."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clusters.hosts import Cluster
from tests.clusters.stand import Stand


@pytest.fixture(scope="session")
def stand() -> Iterator[Stand]:
    """A site whose machine is a cluster of three hosts, of which the third is not running."""
    if os.geteuid() != 0:
        pytest.skip("needs root: makes namespaces, mounts and loop devices")
    with tempfile.TemporaryDirectory(prefix="udi-clusters-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # the store's account reads below it
        number = os.getpid() % 60000  # host names are in the names of loop devices, which all tests see
        cluster = Cluster(directory, [f"c{number}-{each}" for each in (1, 2, 3)])
        try:
            yield Stand(directory, cluster)
        finally:
            cluster.stop()
