"""A running service for the tests of a module, as the store's own account, with a packer that can be made to fail."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.service import Service, directory_for_all


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """A service that every uid can reach."""
    if os.geteuid() != 0:
        pytest.skip("needs root: a service and its users are different accounts")
    with directory_for_all("udi-gateway-") as directory, Service(directory) as running:
        yield running


@pytest.fixture(autouse=True)
def _no_fault(request: pytest.FixtureRequest) -> None:
    """No test inherits another's fault."""
    if "service" in request.fixturenames:
        running: Service = request.getfixturevalue("service")
        running.fault("")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory with room for 1 MiB."""
    directory = tmp_path / "small"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "small", directory], check=True, timeout=60)
    yield directory
    subprocess.run(["umount", directory], check=True, timeout=60)
