"""What is killed leaves nodes that are clean or drained, and no task outside of its image: hooks, slurmd, slurmctld."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slurmsim.cluster import LOGIN
from tests.slurm.cluster import LOOK, Slurm
from xcsim.processes import members, namespace_of, wait_until

_SECONDS = 60.0
_SETTLED = {"idle", "drained"}
_JOB = ("--image=tiny:1", "-w", "n1", "-o", "/scratch/alice/all.out", "--open-mode=append")
Moment = Callable[[Slurm, str], bool]


def _seen(slurm: Slurm, path: str) -> bool:
    return slurm.cluster.host("n1").path(path).exists()


def _note(slurm: Slurm, job: str) -> bool:
    return _seen(slurm, f"/run/udi-slurm/{job}")


def _plan(slurm: Slurm, job: str) -> bool:
    return _seen(slurm, f"/run/udi/{job}.plan")


def _mounted(slurm: Slurm, job: str) -> bool:
    return f" /var/udi/{job} " in Path(f"/proc/{slurm.cluster.host('n1').pid}/mountinfo").read_text()


def _program(slurm: Slurm, hook: str) -> list[int]:
    """The processes of one of our hooks on n1, by the machine's numbers."""
    found = []
    for pid in members("pid", namespace_of(slurm.cluster.host("n1").pid, "pid")):
        with contextlib.suppress(OSError):
            if f"import {hook}" in Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace"):
                found.append(pid)
    return found


def _kill(slurm: Slurm, hook: str) -> None:
    for pid in _program(slurm, hook):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _await(condition: Callable[[], object], what: str) -> None:
    """Without a pause between looks: the moment is what is tested."""
    assert wait_until(lambda: bool(condition()), _SECONDS, 0.0005), what


@pytest.fixture(autouse=True)
def _no_task_outside(slurm: Slurm) -> Iterator[None]:
    """Whatever a test does: its nodes come clean or drained, and come back, and no line was written on the node."""
    yield
    for user in ("alice", "bob"):
        for path in slurm.scratch(user).glob("*.out"):
            assert "NO IMAGE" not in path.read_text(), path
    slurm.cluster.root(LOGIN, "scancel", "-u", "alice,bob", check=False)
    settle(slurm)


def settle(slurm: Slurm) -> dict[str, str]:
    """Wait until each node is idle and clean, or drained with a reason, from which `udi-admin recover` brings it
    back. The states before that."""
    _await(lambda: set(slurm.cluster.states().values()) <= _SETTLED, f"nodes are {slurm.cluster.states()}")
    states = slurm.cluster.states()
    for node, state in states.items():
        if state == "drained":
            assert slurm.cluster.reason(node)
            recovered = slurm.cluster.root(node, "/opt/udi/bin/udi-admin", "recover", node, check=False)
            assert recovered.returncode == 0, recovered.stderr
    slurm.await_clean()
    return states


@pytest.mark.parametrize("moment", [_note, _plan, _mounted], ids=["note", "plan", "mounted"])
def test_killed_prolog(slurm: Slurm, moment: Moment) -> None:
    job = slurm.submit("alice", LOOK, *_JOB)
    _await(lambda: moment(slurm, job), "Prolog did not come so far")
    _kill(slurm, "prolog")
    # Either it was too late, and the job ran inside, or the job does not start and slurmd drains its node.
    slurm.await_state(job, "COMPLETED", "PENDING")
    if slurm.state(job).startswith("PENDING"):
        slurm.run("alice", "scancel", job)
    settle(slurm)


def test_killed_epilog(slurm: Slurm) -> None:
    job = slurm.submit("alice", f"touch /scratch/alice/up\n{LOOK}", *_JOB)
    slurm.await_file(slurm.scratch("alice") / "up")
    _await(lambda: _program(slurm, "epilog") or not _note(slurm, job), "no Epilog")
    _kill(slurm, "epilog")
    slurm.await_state(job, "COMPLETED")
    settle(slurm)


def _running(slurm: Slurm) -> str:
    job = slurm.submit(
        "alice",
        f"touch /scratch/alice/up; until [ -e /scratch/alice/go ]; do sleep 0.05; done\n{LOOK}",
        *_JOB,
        "--requeue",
    )
    slurm.await_file(slurm.scratch("alice") / "up")
    return job


def _finished(slurm: Slurm, job: str) -> list[str]:
    (slurm.scratch("alice") / "go").touch()
    slurm.await_state(job, "COMPLETED")
    lines = (slurm.scratch("alice") / "all.out").read_text().splitlines()
    return [line for line in lines if slurm.marker("tiny:1") in line]


def test_killed_slurmd_of_a_job_that_runs(slurm: Slurm) -> None:
    """The job goes on, in its image, and is taken down by the next slurmd."""
    job = _running(slurm)
    slurm.cluster.kill("n1", "slurmd")
    slurm.cluster.start_slurmd("n1")
    assert slurm.roots("n1") == {job}
    assert len(_finished(slurm, job)) == 1
    slurm.await_clean()


def test_killed_slurmd_in_prolog(slurm: Slurm) -> None:
    job = slurm.submit("alice", LOOK, *_JOB, "--requeue")
    _await(lambda: _note(slurm, job), "no Prolog")
    slurm.cluster.kill("n1", "slurmd")
    slurm.cluster.start_slurmd("n1")
    _await(lambda: not _program(slurm, "prolog"), "Prolog does not end")
    slurm.run("alice", "scancel", job)
    settle(slurm)


def test_a_job_that_was_requeued_from_a_lost_node_and_what_it_left_there(slurm: Slurm) -> None:
    """Slurm starts it on the other node while its tasks are still on the first one, in its image."""
    job = slurm.submit(
        "alice", f"touch /scratch/alice/up-$(hostname -s); sleep 1000\n{LOOK}", "--image=tiny:1", "--requeue"
    )
    slurm.await_file(slurm.scratch("alice") / "up-n1")
    slurm.cluster.kill("n1", "slurmd")
    slurm.cluster.root(LOGIN, "scontrol", "update", "nodename=n1", "state=down", "reason=lost")
    slurm.cluster.root(LOGIN, "scontrol", "requeue", job, check=False)
    assert {line.split(" ")[0] for line in slurm.tasks("n1")} == {f"/var/udi/{job}"}
    slurm.await_state(job, "RUNNING", seconds=_SECONDS)
    slurm.await_file(slurm.scratch("alice") / "up-n2")
    slurm.cluster.start_slurmd("n1")
    slurm.run("alice", "scancel", job)
    slurm.cluster.root(LOGIN, "scontrol", "update", "nodename=n1", "state=resume", check=False)
    settle(slurm)


@pytest.mark.parametrize("moment", ["prolog", "running", "ending"])
def test_killed_controller(slurm: Slurm, moment: str) -> None:
    """The next one finds the job again, or ends what it does not know."""
    if moment == "prolog":
        job = slurm.submit("alice", LOOK, *_JOB)
        _await(lambda: _note(slurm, job), "no Prolog")
    else:
        job = _running(slurm)
    if moment == "ending":
        (slurm.scratch("alice") / "go").touch()
        _await(lambda: _program(slurm, "epilog") or not _note(slurm, job), "no Epilog")
    slurm.cluster.stop_controller()
    slurm.cluster.start_controller()
    (slurm.scratch("alice") / "go").touch()
    settle(slurm)
