"""A set-up or teardown that is killed, or whose call fails, at any point: teardown then leaves the node as it was.

The tiny image makes some eighty points; a seeded part of them is tried, each killed before, killed after, and failing;
`make test-faults` tries them all.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator

import pytest

from tests.node import faults
from tests.node.rig import Rig

_SEED = 2015
_PER_MODE = 1000 if os.environ.get("UDI_ALL_FAULTS") else 16
_ERRNOS = (errno.EIO, errno.EBUSY, errno.ENOSPC, errno.EAGAIN)


def _points(total: int, mode: str) -> Iterator[tuple[int, int]]:
    """A seeded choice of points, the first and the last always, each with an errno."""
    chosen = random.Random(f"{_SEED}{mode}")
    some = {1, total, *chosen.sample(range(1, total + 1), min(_PER_MODE, total))}
    return ((point, chosen.choice(_ERRNOS)) for point in sorted(some))


@pytest.mark.parametrize("mode", ["before", "after", "fail"])
def test_set_up_interrupted(rig: Rig, mode: str) -> None:
    plan = rig.plan()
    before = rig.picture()
    total = faults.set_up(rig, plan).points
    assert rig.tear_down().ok
    assert total > 50
    for point, number in _points(total, mode):
        outcome = faults.set_up(rig, plan, point, mode, number)
        where = f"{mode} point {point} of {total}, errno {number}: {outcome}"
        assert outcome.killed == (mode != "fail"), where
        if mode == "fail" and outcome.report and not outcome.report.ok and outcome.report.code != 8:
            assert before.difference(rig.picture()) == [], f"not undone: {where}"
        down = rig.tear_down()
        assert down.ok, f"{where}: {down.words}"
        assert before.difference(rig.picture()) == [], where
    assert rig.check() == (0, "udi: clean")


@pytest.mark.parametrize("mode", ["before", "after", "fail"])
def test_teardown_interrupted(rig: Rig, mode: str) -> None:
    plan = rig.plan()
    before = rig.picture()
    assert rig.set_up(plan).ok
    total = faults.tear_down(rig, plan.job).points
    for point, number in _points(total, mode):
        assert rig.set_up(plan).ok
        outcome = faults.tear_down(rig, plan.job, point, mode, number)
        where = f"{mode} point {point} of {total}, errno {number}: {outcome}"
        again = rig.tear_down()
        assert again.ok, f"{where}: {again.words}"
        assert before.difference(rig.picture()) == [], where


def test_set_up_again_after_a_killed_one(rig: Rig) -> None:
    """A requeued job finds the remains of its own first try, and is set up all the same."""
    plan = rig.plan()
    before = rig.picture()
    assert faults.set_up(rig, plan, 30, "after").killed
    assert rig.check()[0] == 1
    assert rig.set_up(plan).ok
    assert rig.tear_down().ok
    assert before.difference(rig.picture()) == []
