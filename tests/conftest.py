"""For all tests: they can be reached by the accounts that they use, and in continuous integration none is skipped."""

from __future__ import annotations

import os
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.reachable import make_checkout_reachable

_NODES = ("tests/node/", "tests/system/")


def pytest_configure() -> None:
    """Before any test, and before any thread."""
    make_checkout_reachable()


class Rooms(LoadScopeScheduling):  # type: ignore[misc]
    """How tests are spread over processes (`pytest -n 2`): file by file.

    Those with nodes stay together: nodes are this machine's, so their loop devices and nids are seen by all of them.
    """

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.split("::", 1)[0]
        return "nodes" if path.startswith(_NODES) else path


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Rooms:
    """Called where tests run in several processes."""
    return Rooms(config, log)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail the run where CI skipped a test: a lane that does not run proves nothing."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = len(reporter.stats.get("skipped", [])) if reporter else 0
    if os.environ.get("CI") and skipped and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
