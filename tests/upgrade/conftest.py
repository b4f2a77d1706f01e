"""Versions, made once for all tests, and machines that have no software of ours yet."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.system.cray", "tests.slurm.cluster", "tests.upgrade.hosts", "tests.upgrade.cray")

from tests.upgrade import versions  # noqa: E402
from tests.upgrade.cray import Site, bare  # noqa: E402
from tests.upgrade.versions import Version  # noqa: E402


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("versions")


@pytest.fixture(scope="session")
def this() -> Version:
    return versions.this()


@pytest.fixture(scope="session")
def later(work: Path) -> Version:
    return versions.next_version(work)


@pytest.fixture(scope="session")
def older() -> Version:
    return versions.of_history(versions.FIRST_WITH_KEPT_TEARDOWNS)


@pytest.fixture(scope="session")
def oldest() -> Version:
    return versions.of_history(versions.LAST_WITH_PLANS_2)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A machine of four nodes with Torque and ALPS, its configuration and its registry."""
    if os.geteuid() != 0:
        pytest.skip("namespaces and mounts need root")
    with bare(tmp_path / "state") as site:
        yield site
