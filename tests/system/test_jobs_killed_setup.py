"""Set-up that is killed, fails or hangs on one of the nodes: undone on all, and the job is the site's to look after."""

from __future__ import annotations

import pytest

from tests.system.cray import A, B, Cray
from tests.system.killing import killed
from tests.system.scripts import expected, ranks

ALICE = 1001


@pytest.mark.parametrize(
    ("point", "mode"),
    [(1, "after"), (3, "before"), (20, "after"), (34, "before"), (48, "after"), (56, "before")],
)
def test_a_set_up_that_is_killed_is_undone_on_all_nodes(cray: Cray, point: int, mode: str) -> None:
    with killed(cray, B, point, mode, max_starts=1):
        ended = cray.run("alice")
        assert (ended.state, ended.status, ended.codes) == ("H", "-14", [2])
    said = f"udi-prologue: setup on nid{B:05d}: no answer: exit code 137 (signal 9)"
    assert ended.error.startswith(said) and ended.error.count("\n") == 1
    assert ended.error.endswith("[site error (not your job's fault); job held after 1 failed start]\n")
    assert ended.output == "" and cray.states() == []
    assert f"job {ended.id}: held since" in cray.admin("status")
    assert "no answer" in cray.admin("status")
    cray.assert_clean()
    assert set(cray.statuses().values()) == {"up"}


@pytest.mark.parametrize(("point", "mode"), [(2, "fail"), (30, "fail")])
def test_a_set_up_that_fails_on_one_node_is_undone_on_all(cray: Cray, point: int, mode: str) -> None:
    with killed(cray, A, point, mode, max_starts=1):
        ended = cray.run("alice", nodes=4)
        assert (ended.state, ended.codes) == ("H", [2])
    assert ended.error.startswith(f"udi-prologue: setup on nid{A:05d}: ") and "No space left on device" in ended.error
    assert ended.error.count("\n") == 1
    cray.assert_clean()


def test_a_set_up_that_hangs_is_ended_in_its_time(cray: Cray) -> None:
    with killed(cray, B, 25, "hang", max_starts=1):
        ended = cray.run("alice")
        assert (ended.state, ended.codes) == ("H", [2])
    assert ended.error.startswith(f"udi-prologue: setup on nid{B:05d}: not finished within 3 seconds")
    cray.assert_clean()
    assert set(cray.statuses().values()) == {"up"}


def test_a_held_job_runs_once_the_site_releases_it(cray: Cray) -> None:
    with killed(cray, B, 40, "after", max_starts=2):
        job = cray.qsub("alice", ranks(4), nodes=4)
        ended = cray.ended(job)
        assert (ended.state, ended.starts, ended.codes) == ("H", 2, [2, 2])
    assert cray.machine.job(job)["Hold_Types"] == "s"
    assert cray.machine.run_as("alice", ["qrls", "-h", "s", job]).returncode != 0
    cray.machine.run_as("root", ["qrls", "-h", "s", job], check=True)
    ended = cray.ended(job, "C")
    assert ended.status == "0"
    assert sorted(ended.output.splitlines()) == expected(cray.marker("tiny:1"), ALICE, 4)
    assert job not in cray.admin("status")
    cray.assert_clean()
