"""Heterogeneous jobs whose start fails: Slurm queues all components again, by the first one alone."""

from __future__ import annotations

import re

from tests.slurm.cluster import LOOK, Slurm
from xcsim.processes import wait_until


def shown(slurm: Slurm, job: str, field: str) -> str:
    text = slurm.cluster.root("login", "scontrol", "show", "job", job).stdout
    found = re.findall(rf"\b{field}=(.*)$", text, re.MULTILINE)
    return found[0].strip() if found else ""


def test_a_component_whose_start_fails_and_a_job_that_is_queued_again(slurm: Slurm) -> None:
    """The root of the second component alone cannot be made: the whole job is held, and runs when it is released, in
    its image on both nodes. Queued again while it runs, it does so another time."""
    script = f"""#SBATCH -w n1 -c1 --image=tiny:1 --requeue
    #SBATCH hetjob
    #SBATCH -w n2 -c1 --image=tiny:1 --requeue
    {LOOK}
    touch /scratch/alice/up; until [ -e /scratch/alice/go ]; do sleep 0.05; done"""
    script = re.sub(r"^ +", "", script, flags=re.MULTILINE)
    slurm.cluster.root("n2", "mkdir", "-p", "/mnt/empty")
    slurm.cluster.root("n2", "mount", "--bind", "/mnt/empty", "/scratch/udi")
    try:
        with slurm.configured({"slurm": {"max_starts": 1}}):
            job = slurm.submit("alice", script, "--open-mode=append")
            assert wait_until(lambda: "held" in slurm.state(job), 60, 0.05), slurm.state(job)
    finally:
        slurm.cluster.root("n2", "umount", "/scratch/udi")
    second = str(int(job) + 1)
    assert shown(slurm, job, "AdminComment").startswith("shifter-xc: start 0 failed (1 in a row, held): image store")
    assert "held" in slurm.state(second) and "NO IMAGE" not in slurm.output("alice", job)
    slurm.cluster.await_states("idle")
    (slurm.scratch("alice") / "up").unlink(missing_ok=True)  # the first one may have begun
    before = slurm.output("alice", job).count(slurm.marker("tiny:1"))
    for each in (job, second):
        slurm.cluster.root("login", "scontrol", "release", each)
    slurm.await_file(slurm.scratch("alice") / "up")
    assert (slurm.roots("n1"), slurm.roots("n2")) == ({job}, {second})
    slurm.cluster.root("login", "scontrol", "requeue", job)
    (slurm.scratch("alice") / "up").unlink()
    slurm.await_file(slurm.scratch("alice") / "up")
    assert (slurm.roots("n1"), slurm.roots("n2")) == ({job}, {second})
    (slurm.scratch("alice") / "go").touch()
    slurm.await_state(job, "COMPLETED")
    output = slurm.output("alice", job)
    assert output.count(slurm.marker("tiny:1")) == before + 2 and "NO IMAGE" not in output
