"""What Slurm itself does with what the hooks tell it: jobs sent back and held, nodes drained, hooks without Alloc."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from slurmsim.cluster import LOGIN
from tests.slurm.cluster import ALICE, LOOK, Slurm
from tests.slurm.conftest import cluster_up
from udiroot.errors import printable
from xcsim.processes import wait_until

HELD = "PENDING job_requeued_in_held_state"
_PYTHON = """#!/bin/sh
case " $* " in *" unsetupRoot "*) step=unsetupRoot ;; *) step=setupRoot ;; esac
if [ $step = {step} ]; then
    for word in "$@"; do nonce=$word; done
    echo "UDI-REPORT $nonce $(uname -n) failed 5 8 7 mounts=3 held by 12 (vi)"
    exit 8
fi
exec /usr/bin/python3 "$@"
"""


@contextmanager
def broken_store(slurm: Slurm, **settings: object) -> Iterator[None]:
    """The image store is not mounted where the site says."""
    with slurm.configured({"store": {"path": "/scratch/gone"}, "slurm": settings}):
        yield


@contextmanager
def reporting(slurm: Slurm, step: str) -> Iterator[None]:
    """The node software reports of one step that it left something."""
    path = slurm.cluster.directory / "opt/reporting"
    path.write_text(_PYTHON.format(step=step))
    path.chmod(0o755)
    with slurm.configured({"node": {"python": ["/opt/udi/reporting"]}}):
        yield


def shown(slurm: Slurm, job: str, field: str) -> str:
    text = slurm.cluster.root(LOGIN, "scontrol", "show", "job", job).stdout
    found = re.search(rf"^.*\b{field}=(.*)$", text, re.MULTILINE)
    return found[1].strip() if found else ""


def health(slurm: Slurm, node: str) -> int:
    """Run the health check as slurmd does; its exit code."""
    words = ("env", "-i", f"SLURMD_NODENAME={node}", "/opt/udi/bin/udi-slurm-health")
    return slurm.cluster.root(node, *words, check=False).returncode


def test_a_job_of_a_site_that_fails_is_requeued_and_its_nodes_stay(slurm: Slurm) -> None:
    with broken_store(slurm):
        job = slurm.submit("alice", LOOK, "--image=tiny:1", "-N2")
        assert wait_until(lambda: slurm.state(job) == "PENDING BeginTime", 30, 0.05), slurm.state(job)
        slurm.cluster.await_states("idle")
        comment = shown(slurm, job, "AdminComment")
        assert comment.startswith("shifter-xc: start 0 failed (1 in a row): image store /scratch/gone cannot be used")
        assert shown(slurm, job, "Requeue").startswith("1 Restarts=1 ")
    assert "NO IMAGE" not in slurm.output("alice", job)


def test_after_some_failures_a_job_is_held_with_the_reason_until_it_is_released(slurm: Slurm) -> None:
    with broken_store(slurm, max_starts=1):
        job = slurm.submit("alice", LOOK, "--image=tiny:1")
        assert wait_until(lambda: slurm.state(job) == HELD, 30, 0.05), slurm.state(job)
        assert "(1 in a row, held): image store" in shown(slurm, job, "AdminComment")
    time.sleep(2.0)  # slurmd runs no Prolog for a job that it ended within the last second
    slurm.cluster.root(LOGIN, "scontrol", "release", job)
    slurm.cluster.root(LOGIN, "scontrol", "update", f"jobid={job}", "starttime=now")
    slurm.await_state(job, "COMPLETED")
    assert f"{slurm.marker('tiny:1')} {ALICE}" in slurm.output("alice", job)


def test_jobs_of_an_array_are_held_each_for_itself(slurm: Slurm) -> None:
    """The last one has the number of the array, by which commands would reach all of them."""
    with broken_store(slurm, max_starts=1):
        array = slurm.submit("alice", LOOK, "--image=tiny:1", "--array=1")
        other = slurm.submit("alice", LOOK, "--image=tiny:1", "--array=1-2", "--begin=now+1hour")
        held = wait_until(lambda: slurm.state(f"{array}_1") == HELD, 90, 0.05)
        assert held, slurm.cluster.root(LOGIN, "scontrol", "show", "job", array).stdout
        assert slurm.state(f"{other}_2") in ("PENDING BeginTime", "PENDING None")  # until the scheduler looks at it


def test_what_cannot_be_requeued_ends_with_the_reason(slurm: Slurm) -> None:
    with broken_store(slurm):
        done = slurm.run("alice", "srun", "-N1", "--image=tiny:1", "/bin/sh", "-c", LOOK)
        assert done.returncode and "NO IMAGE" not in done.stdout
        assert "image store /scratch/gone cannot be used" in done.stderr, done.stderr
        assert "[site error (not your job's fault)" in done.stderr


def test_users_error_at_start_ends_the_job_and_nothing_else(slurm: Slurm) -> None:
    """The image was there at submission, and is another user's by then."""
    job = slurm.submit("bob", LOOK, "--image=secret:1", "--begin=now+1hour")
    slurm.cluster.root(
        LOGIN, "sh", "-c", "mkdir /scratch/away && mv /scratch/udi/refs/*secret* /scratch/udi/refs/id:* /scratch/away"
    )
    try:
        slurm.cluster.root(LOGIN, "scontrol", "update", f"jobid={job}", "starttime=now")
        slurm.await_state(job, "FAILED")
        assert "image 'secret:1' not found, or you do not have access to it" in slurm.output("bob", job)
        assert "site error" not in slurm.output("bob", job) and shown(slurm, job, "AdminComment") in ("", "(null)")
    finally:
        slurm.cluster.root(LOGIN, "sh", "-c", "mv /scratch/away/* /scratch/udi/refs && rmdir /scratch/away")


def test_a_node_that_cannot_be_cleaned_is_drained_with_the_reason(slurm: Slurm) -> None:
    with reporting(slurm, "unsetupRoot"):
        done = slurm.run("alice", "srun", "-w", "n1", "--image=tiny:1", "/bin/sh", "-c", LOOK)
        assert done.returncode == 0 and slurm.marker("tiny:1") in done.stdout
        assert wait_until(lambda: "drain" in slurm.cluster.states()["n1"], 30, 0.05)
    assert re.fullmatch(r"shifter-xc: job \d+: held by 12 \(vi\)", slurm.cluster.reason("n1").split(" [")[0])
    assert slurm.cluster.states()["n2"] == "idle"
    assert health(slurm, "n1") == 1, "the root is still there"
    clean(slurm, "n1")
    assert health(slurm, "n1") == 0


def test_a_node_that_is_dirty_after_a_setup_is_drained_and_its_job_sent_elsewhere(slurm: Slurm) -> None:
    with reporting(slurm, "setupRoot"):
        job = slurm.submit("alice", LOOK, "--image=tiny:1", "-w", "n1")
        assert wait_until(lambda: "drain" in slurm.cluster.states()["n1"], 30, 0.05)
        assert wait_until(lambda: slurm.state(job).startswith("PENDING"), 30, 0.05), slurm.state(job)
    assert "held by 12 (vi)" in slurm.cluster.reason("n1")
    clean(slurm, "n1")


def clean(slurm: Slurm, node: str) -> None:
    """Take down on the node what is left there."""
    code = (
        "from slurm_hooks.recovery import clean_here; from udi.command import Deadline; from udi.config import load;"
        f" clean_here(load('/etc/udi/udi.toml'), '{node}', Deadline(30))"
    )
    slurm.cluster.root(node, "/opt/udi/venv/bin/python", "-I", "-c", code)


@pytest.mark.long
def test_the_health_check_tells_busy_from_leaked(slurm: Slurm) -> None:
    job = slurm.submit("alice", "touch started; sleep 600", "--image=tiny:1", "-w", "n1", "-D", "/scratch/alice")
    slurm.await_file(slurm.scratch("alice") / "started")
    assert health(slurm, "n1") == 0
    leak(slurm, "n1", "999999")
    slurm.cluster.stop_controller("TERM")  # so that it keeps its jobs
    assert health(slurm, "n1") == 0, "where slurmctld does not answer, any job may run"
    slurm.cluster.start_controller()
    assert wait_until(lambda: slurm.cluster.states().get("n1") in ("allocated", "mixed"), 30, 0.05)
    assert health(slurm, "n1") == 1
    assert slurm.cluster.reason("n1").startswith("shifter-xc: left by 999999 (set up ")
    assert slurm.state(job) == "RUNNING None" and job in slurm.roots("n1")
    clean(slurm, "n1")
    assert slurm.roots("n1") == {job}
    slurm.cluster.root(LOGIN, "scancel", job)


def leak(slurm: Slurm, node: str, job: str) -> None:
    """A root of a job that Slurm does not know."""
    environment = [f"SLURM_JOB_ID={job}", f"SLURM_JOB_UID={ALICE}", f"SLURMD_NODENAME={node}", "SPANK_UDI_IMAGE=tiny:1"]
    slurm.cluster.root(node, "env", "-i", *environment, "/opt/udi/bin/udi-slurm-prolog")
    assert job in slurm.roots(node)


def test_without_alloc_hooks_come_with_the_first_step_or_not_at_all() -> None:
    """An allocation without a step has an Epilog without a Prolog; the first step's Prolog knows that step's nodes."""
    with cluster_up(slurm={"PrologFlags": ""}) as slurm:
        done = slurm.run("alice", "salloc", "-N2", "--image=tiny:1", "true")
        assert done.returncode == 0, done.stderr
        slurm.await_clean()
        script = "srun -N1 -n1 cat /var/nodelist; srun -N2 -n2 /bin/sh -c '" + LOOK + "'"
        steps = slurm.run("alice", "salloc", "-N2", "--image=tiny:1", "/bin/sh", "-c", script)
        lines = [printable(line) for line in steps.stdout.splitlines()]
        assert lines[:2] == ["n1", "n2"], (lines, steps.stderr)
        assert sorted(lines[2:]) == [f"{name} {slurm.marker('tiny:1')} {ALICE}" for name in ("n1", "n2")]
        job = slurm.submit("alice", LOOK, "--image=tiny:1", "-N2")
        slurm.await_state(job, "COMPLETED")
        assert slurm.marker("tiny:1") in slurm.output("alice", job)
        slurm.await_clean()


def test_a_hook_that_cannot_be_started_lets_no_task_in(slurm: Slurm) -> None:
    """The interpreter is missing on a node: the job is held, and no node drained."""
    python = slurm.cluster.directory / "opt/venv/bin/python"
    job = slurm.submit("alice", LOOK, "--image=tiny:1", "--begin=now+1hour")
    target = python.readlink()
    python.unlink()
    try:
        slurm.cluster.root(LOGIN, "scontrol", "update", f"jobid={job}", "starttime=now")
        assert wait_until(lambda: slurm.state(job) == HELD, 30, 0.05), slurm.state(job)
    finally:
        python.symlink_to(target)
    assert "NO IMAGE" not in slurm.output("alice", job)
    # Epilog could not be started either, so slurmd has drained the node: its note and lock are left.
    nodes: list[subprocess.CompletedProcess[str]] = []
    for name, state in slurm.cluster.states().items():
        if "drain" in state:
            clean(slurm, name)
            nodes.append(slurm.cluster.root(LOGIN, "scontrol", "update", f"nodename={name}", "state=resume"))
    slurm.cluster.await_states("idle")
    assert len(nodes) <= 1
