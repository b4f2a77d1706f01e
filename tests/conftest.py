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
    "soak": ("tests/soak/",),
}
_FIRST = ("gateway", "xcsim", "nodes", "soak", "slurm", "test_torque_prologue", "test_damaged_records", "test_checks")
"""Begun in this order, the longest first; small files fill the gaps at the end. A process with two tests or fewer gets
its next group at once: behind the soak, which is one test of five minutes, must not be one of the longest."""


def pytest_configure(config: pytest.Config) -> None:
    """Before any test, and before any thread."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what is in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)  # programs inherit it, and some tests interrupt them
    have_own_mounts()
    make_checkout_reachable()
    config.option.loadscopereorder = False  # by how many tests there are; what counts is how long they take


class Rooms(LoadScopeScheduling):  # type: ignore[misc]
    """How tests are spread over processes (`pytest -n 2`): file by file, but for those that look at the whole machine.

    Tests of one machine stay together, since all see the loop devices of all, which carry nids: those of nodes alone,
    and of xcsim. So do those of the gateway, which look for, and kill, the processes of one account, and those of
    Slurm, whose clusters take a second to start.
    """

    def _split_scope(self, nodeid: str) -> str:
        return _together(nodeid)


def _together(nodeid: str) -> str:
    """What a test stays together with: a name of _TOGETHER, or its file."""
    path = nodeid.split("::", 1)[0]
    return next((name for name, directories in _TOGETHER.items() if path.startswith(directories)), path)


def _turn(item: pytest.Item) -> int:
    """When the test comes, by _FIRST."""
    together = _together(item.nodeid).removeprefix("tests/unit/").removesuffix(".py")
    return _FIRST.index(together) if together in _FIRST else len(_FIRST)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The long ones first; leave out the tests marked `long`, but in `make test-faults`."""
    items.sort(key=_turn)
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
