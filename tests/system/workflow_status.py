"""`status` of docs/users.md, by which Snakemake asks what became of a job: its word for each state of a job."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests import pages
from tests.system.cray import Cray

_ALICE = 1001
Status = Callable[[str], str]


@pytest.fixture
def status(cray: Cray) -> Status:
    """The page's script, as alice's."""
    steps = [step for recipe in pages.recipes("users.md", "torque") for step in recipe.steps]
    path = cray.machine.path("/home/alice/status")
    path.write_text("".join(f"{line}\n" for line in next(step.seen for step in steps if step.typed == "cat status")))
    path.chmod(0o755)
    os.chown(path, _ALICE, _ALICE)
    return lambda job: cray.machine.run_as("alice", ["/home/alice/status", job]).stdout.strip()


def test_of_jobs_that_have_ended(cray: Cray, status: Status) -> None:
    assert status(cray.run("alice", "exit 0\n").id) == "success"
    assert status(cray.run("alice", "exit 10\n").id) == "failed"


def test_of_jobs_that_run_and_that_are_deleted(cray: Cray, status: Status) -> None:
    job = cray.qsub("alice", "touch $HOME/begun; sleep 60\n")
    cray.running(job, "/home/alice/begun")
    assert status(job) == "running"
    cray.machine.run_as("alice", ["/usr/bin/qdel", job], check=True)
    cray.ended(job, "C")
    assert status(job) == "failed"


def test_of_jobs_that_are_held(cray: Cray, status: Status) -> None:
    job = cray.qsub("alice", "true\n", "-h")
    assert status(job) == "failed"
    cray.machine.run_as("alice", ["/usr/bin/qdel", job], check=True)


def test_of_jobs_that_nobody_knows(cray: Cray, status: Status) -> None:
    assert status("99999.sdb") == "failed"


def test_while_the_server_is_down(cray: Cray, status: Status) -> None:
    job = cray.run("alice", "exit 10\n").id
    cray.machine.set_fault("qstat-down")
    assert status(job) == "running"
    cray.machine.clear_faults()
    assert status(job) == "failed"
