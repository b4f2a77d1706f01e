"""Fixtures of the node tests: they need root, since they make namespaces, mounts and loop devices."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.node.rig import Rig


@pytest.fixture(scope="session")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A running compute node, shared by all node tests; each test leaves it clean."""
    if os.geteuid() != 0:
        pytest.skip("needs root: makes namespaces, mounts and loop devices")
    made = Rig(tmp_path_factory.mktemp("rig") / "shared")
    yield made
    made.close()
