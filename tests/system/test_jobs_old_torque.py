"""A machine with Torque 4.2, whose hooks get 7 and 10 arguments, and whose first job has the number 1."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.system.cray import A, B, C, Cray
from tests.system.scripts import expected, ranks
from xcsim.machine import Machine

ALICE, BOB = 1001, 1002
GO = "/scratch/alice/go"
WAITING = "touch /scratch/alice/up; while [ ! -e /scratch/alice/go ]; do sleep 0.05; done\n"


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cray]:
    if os.geteuid() != 0:
        pytest.skip("namespaces and mounts need root")
    cray = Cray(Machine(tmp_path_factory.mktemp("old") / "state"))
    try:
        cray.up(torque_version="4.2.10")
        yield cray
    finally:
        cray.machine.down()


def next_number(cray: Cray, number: int) -> None:
    """Let Torque count on until the next job gets this number: an empty script takes a number, and makes no job."""
    while cray.machine.qsub("alice", [], "") != f"{number - 1}.sdb":
        pass


def test_jobs_whose_numbers_begin_alike_leave_each_other_alone(old: Cray) -> None:
    """Job 1 runs on, while 10 and 11 come and go beside it; then 1 ends beside 12."""
    first = old.qsub("alice", WAITING + ranks(1), nodes=1)
    assert first == "1.sdb"
    old.running(first, "/scratch/alice/up")
    before = old.picture(A)
    next_number(old, 10)
    tenth = old.run("bob", image="secret:1")
    assert tenth.id == "10.sdb"
    assert sorted(tenth.output.splitlines()) == expected(old.marker("secret:1"), BOB)
    assert old.roots() == [A]
    eleventh = old.qsub("bob", "aprun -q -n 2 -N 1 -b sleep 60\n", image="secret:1")
    old.running(eleventh)
    assert old.roots() == [A, B, C]
    old.machine.run_as("bob", ["qdel", eleventh], check=True)
    assert old.ended(eleventh).status == "271"
    assert old.states() == [first]
    old.assert_mounts_gone(B, C)
    assert old.picture(A).mounts == before.mounts

    twelfth = old.qsub("bob", WAITING.replace("/go", "/further") + ranks(2), image="tools:1")
    old.running(twelfth)
    assert old.roots() == [A, B, C]
    old.machine.path(GO).touch()
    ended = old.ended(first)
    assert sorted(ended.output.splitlines()) == expected(old.marker("tiny:1"), ALICE, 1)
    assert old.roots() == [B, C]
    old.machine.path("/scratch/alice/further").touch()
    old.machine.run_as("bob", ["qdel", twelfth])
    old.ended(twelfth)
    old.assert_clean()


def test_a_tag_means_what_it_means_at_the_start_where_hooks_get_no_script(old: Cray) -> None:
    """The pin is in the script, whose path this Torque does not tell."""
    old.pull("alice", "app:old", content="first")
    old.pull("alice", "app:1", content="first")
    job = old.qsub("alice", ranks(), "-h", image="app:1")
    old.pull("alice", "app:1", content="second")
    old.machine.run_as("alice", ["qrls", job], check=True)
    ended = old.ended(job, "C")
    assert sorted(ended.output.splitlines()) == expected(old.marker("second"), ALICE)
    assert ended.error == ""
    old.assert_clean()


def test_the_user_is_told_and_the_nodes_are_clean_here_too(old: Cray) -> None:
    with old.without_filter():
        ended = old.run("alice", image="absent:1")
    assert (ended.status, ended.codes, ended.error.count("\n")) == ("-2", [1], 1)
    assert "image 'absent:1' not found, or you do not have access to it" in ended.error
    old.machine.set_fault("dead-node", node=A, count=1)
    ended = old.ended(old.qsub("alice", ranks()))
    assert (ended.status, ended.codes) == ("0", [2])
    old.assert_clean()


def test_a_job_without_an_image_starts_no_python(old: Cray) -> None:
    ended = old.run("alice", ranks(2, "cat /etc/xcsim/nid"), image="")
    assert (ended.log, len(ended.output.splitlines())) == ((), 5)
    old.assert_clean()
