"""The plan in the store, and what is left of one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jobs.planfile import new_plan_path, remove_plan
from tests.unit.cray_standins import StandIns
from udi import durable


@pytest.mark.skipif(os.geteuid() != 0, reason="the store must be written with the account's rights")
def test_what_a_killed_start_left_of_its_plan_goes_with_the_job(tmp_path: Path) -> None:
    site = StandIns(tmp_path).site
    path = new_plan_path(site, "123.sdb")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    for each in (path, durable.unfinished(path)):
        Path(each).write_text("udi-plan")
    remove_plan(site, path)
    remove_plan(site, path)
    assert os.listdir(Path(path).parent) == []
