"""A running service for the tests of a module, as the store's own account, with a packer that can be made to fail."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.service import Service


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """A service that every uid can reach."""
    if os.geteuid() != 0:
        pytest.skip("needs root: a service and its users are different accounts")
    folder = Path(tempfile.mkdtemp(prefix="udi-gateway-"))
    running = Service(folder)
    try:
        running.start()
        yield running
    finally:
        running.stop()
        shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def _no_fault(request: pytest.FixtureRequest) -> None:
    """No test inherits another's fault."""
    if "service" in request.fixturenames:
        running: Service = request.getfixturevalue("service")
        running.fault("")
