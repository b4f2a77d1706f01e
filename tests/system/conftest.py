"""One machine for all tests of whole jobs. Each test finds it clean, and must leave it so."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite("tests.system.cray", "tests.system.endings")

from tests.system.cray import Cray  # noqa: E402
from xcsim.machine import Machine  # noqa: E402

collect_ignore = [] if os.environ.get("UDI_ALL_FAULTS") else ["test_operations.py", "test_why.py"]
"""Minutes of procedures and failures, which `make test-faults` runs."""


@pytest.fixture(scope="session")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cray]:
    """A machine of four nodes that is up for the whole run."""
    if os.geteuid() != 0:
        pytest.skip("namespaces and mounts need root")
    cray = Cray(Machine(tmp_path_factory.mktemp("cray") / "state"))
    try:
        cray.up()
        yield cray
    finally:
        cray.machine.down()


@pytest.fixture
def cray(standing: Cray) -> Iterator[Cray]:
    """The same machine for one test; afterwards every node is as it was before the first job."""
    yield standing
    standing.reset()
    standing.assert_clean()
    assert standing.states() == []
    assert set(standing.statuses().values()) == {"up"}
