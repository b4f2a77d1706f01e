"""For all tests: they can be reached by the accounts that they use, and in continuous integration none is skipped."""

from __future__ import annotations

import os

import pytest

from tests.reachable import make_checkout_reachable


def pytest_configure() -> None:
    """Before any test, and before any thread."""
    make_checkout_reachable()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail the run where CI skipped a test: a lane that does not run proves nothing."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = len(reporter.stats.get("skipped", [])) if reporter else 0
    if os.environ.get("CI") and skipped and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
