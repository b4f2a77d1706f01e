"""For all tests: they can be reached by the accounts that they use, and in continuous integration none is skipped."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from tests.reachable import have_own_mounts, make_checkout_reachable

# How long a test takes says how busy the machine is, and nothing of what is tested.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

_TOGETHER = {
    "nodes": ("tests/node/", "tests/clusters/"),
    "xcsim": ("tests/system/",),
    "gateway": ("tests/gateway/", "tests/disks/"),
    "slurm": ("tests/slurm/",),
}


def pytest_configure(config: pytest.Config) -> None:
    """Before any test, and before any thread."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what is in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)  # programs inherit it, and some tests interrupt them
    have_own_mounts()
    make_checkout_reachable()
    config.option.loadscopereorder = False  # the long ones come first by name, and small files fill the gap at the end


class Rooms(LoadScopeScheduling):  # type: ignore[misc]
    """How tests are spread over processes (`pytest -n 2`): file by file, but for those that look at the whole machine.

    Tests of one machine stay together, since all see the loop devices of all, which carry nids: those of nodes alone,
    and of xcsim. So do those of the gateway, which look for, and kill, the processes of one account, and those of
    Slurm, whose clusters take a second to start.
    """

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.split("::", 1)[0]
        return next((name for name, directories in _TOGETHER.items() if path.startswith(directories)), path)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests marked `long`, but in `make test-faults`."""
    if os.environ.get("UDI_ALL_FAULTS"):
        return
    out = [item for item in items if item.get_closest_marker("long")]
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if not item.get_closest_marker("long")]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Rooms:
    """Called where tests run in several processes."""
    return Rooms(config, log)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail the run where CI skipped a test: a lane that does not run proves nothing."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = len(reporter.stats.get("skipped", [])) if reporter else 0
    if os.environ.get("CI") and skipped and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
