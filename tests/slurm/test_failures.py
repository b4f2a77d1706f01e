"""Whose fault a failure is, in a real Slurm: the user's ends the job with the reason, the site's sends it back and
holds it in the end, a node's own drains that node."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from slurmsim import site
from slurmsim.cluster import LOGIN
from tests.slurm.cluster import LOOK, Slurm
from tests.slurm.test_kills import health
from xcsim.processes import wait_until

_SECONDS = 60.0
_WAITING = f"touch /scratch/alice/up; until [ -e /scratch/alice/go ]; do sleep 0.05; done\n{LOOK}"


def admin(slurm: Slurm, node: str, *words: str) -> subprocess.CompletedProcess[str]:
    return slurm.cluster.root(node, "/opt/udi/bin/udi-admin", *words, check=False)


def running(slurm: Slurm, node: str = "n1") -> str:
    job = slurm.submit("alice", _WAITING, "--image=tiny:1", "-w", node)
    slurm.await_file(slurm.scratch("alice") / "up")
    return job


def end(slurm: Slurm, job: str) -> None:
    (slurm.scratch("alice") / "go").touch()
    slurm.await_state(job, "COMPLETED")


def await_drained(slurm: Slurm, node: str) -> str:
    """The reason."""
    assert wait_until(lambda: slurm.cluster.states()[node] == "drained", _SECONDS, 0.05), slurm.cluster.states()
    return slurm.cluster.reason(node)


@contextmanager
def held_in_queue(slurm: Slurm, script: str, *options: str) -> Iterator[str]:
    """A job that was accepted and starts at the end of the block."""
    job = slurm.submit("alice", script, "--hold", *options)
    yield job
    slurm.cluster.root(LOGIN, "scontrol", "release", job)


def test_a_volume_that_is_gone_when_the_job_starts(slurm: Slurm) -> None:
    data = slurm.scratch("alice") / "gone"
    data.mkdir()
    data.chmod(0o777)
    with held_in_queue(slurm, LOOK, "--image=tiny:1", "--volume=/scratch/alice/gone:/data") as job:
        data.rmdir()
    slurm.await_state(job, "FAILED")
    output = slurm.output("alice", job)
    assert "/scratch/alice/gone" in output and "no such file or directory" in output.lower(), output
    assert "site error" not in output and "NO IMAGE" not in output and slurm.marker("tiny:1") not in output
    slurm.await_clean()


def test_an_image_that_was_removed_after_submission(slurm: Slurm) -> None:
    slurm.pull("alice", "brief:1")
    with held_in_queue(slurm, LOOK, "--image=brief:1") as job:
        done = slurm.run("alice", "udi", "rm", "brief:1")
        assert done.returncode == 0, done.stderr
        id_ = slurm.ids["brief:1"]
        slurm.cluster.run_as("udi", "rm", "-rf", f"/scratch/udi/images/{id_}", cwd="/")
    slurm.await_state(job, "FAILED")
    output = slurm.output("alice", job)
    assert "brief:1" in output and "NO IMAGE" not in output and slurm.marker("brief:1") not in output, output
    slurm.await_clean()


@contextmanager
def store_away(slurm: Slurm) -> Iterator[None]:
    """The configuration names a store that is not there."""
    site.configure(slurm.cluster, {"store": {**site.TABLES["store"], "path": "/scratch/moved"}, "slurm": _ONE_MORE})
    try:
        yield
    finally:
        site.configure(slurm.cluster, {})


_ONE_MORE = {**site.TABLES["slurm"], "max_starts": 2}


def comment(slurm: Slurm, job: str) -> str:
    shown = slurm.cluster.root(LOGIN, "scontrol", "show", "job", job).stdout
    return next((line.partition("=")[2] for line in shown.splitlines() if "AdminComment=" in line), "")


def is_held(slurm: Slurm, job: str) -> bool:
    return "held" in slurm.state(job).lower() and ", held)" in comment(slurm, job)


def test_sites_error_sends_the_job_back_and_holds_it_until_it_is_released(slurm: Slurm) -> None:
    """On two nodes, whose failures count once a start."""
    with held_in_queue(slurm, LOOK, "--image=tiny:1", "-N2", "--requeue") as job, store_away(slurm):
        slurm.cluster.root(LOGIN, "scontrol", "release", job)
        assert wait_until(lambda: is_held(slurm, job), _SECONDS, 0.05), slurm.state(job)
        assert comment(slurm, job).startswith("shifter-xc: start 1 failed (2 in a row, held): "), comment(slurm, job)
        assert not any("drain" in state for state in slurm.cluster.states().values())
        slurm.cluster.await_states("idle")
        slurm.cluster.root(LOGIN, "scontrol", "release", job)
        assert wait_until(lambda: "(1 in a row)" in comment(slurm, job), _SECONDS, 0.02), comment(slurm, job)
    slurm.await_state(job, "COMPLETED", "PENDING")
    slurm.cluster.root(LOGIN, "scontrol", "release", job, check=False)
    slurm.await_state(job, "COMPLETED")
    lines = [line for line in slurm.output("alice", job).splitlines() if slurm.marker("tiny:1") in line]
    assert len(lines) == 1 and "NO IMAGE" not in slurm.output("alice", job)


def test_a_node_that_cannot_be_cleaned_is_drained_and_comes_back(slurm: Slurm) -> None:
    """A daemon of root's has its working directory in the job's root: nothing of ours may kill it."""
    job = running(slurm)
    held = slurm.cluster.host("n1").words(["sleep", "100000"], cwd=f"/var/udi/{job}/usr")
    process = subprocess.Popen(held, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        inside = f"/var/udi/{job}/usr"
        look = ["sh", "-c", "for p in /proc/[0-9]*; do readlink $p/cwd; done"]
        assert wait_until(lambda: inside in slurm.cluster.root("n1", *look, check=False).stdout, 30, 0.02)
        end(slurm, job)
        reason = await_drained(slurm, "n1")
        assert reason.startswith(f"shifter-xc: job {job}: "), reason
        refused = admin(slurm, "n1", "recover", "n1")
        assert refused.returncode != 0 and slurm.cluster.states()["n1"] == "drained", refused.stdout
        assert slurm.cluster.states()["n2"] == "idle"
        slurm.cluster.root("n1", "pkill", "-KILL", "-f", "^sleep 100000")
    finally:
        process.kill()
        process.wait()
    recovered = admin(slurm, "n1", "recover", "n1")
    assert recovered.returncode == 0, recovered.stderr
    slurm.await_clean()


def test_the_health_check_tells_busy_from_leaked(slurm: Slurm) -> None:
    job = running(slurm)
    health(slurm, "n1")
    assert (slurm.cluster.states()["n1"], slurm.roots("n1")) == ("mixed", {job})
    slurm.cluster.configure({"Epilog": "/bin/true"})
    try:
        slurm.cluster.root(LOGIN, "scontrol", "reconfigure")
        end(slurm, job)
        slurm.cluster.await_states("idle")
        assert slurm.roots("n1") == {job}
        health(slurm, "n1")
        reason = await_drained(slurm, "n1")
        assert reason.startswith("shifter-xc: left by ") and job in reason, reason
        assert slurm.cluster.states()["n2"] == "idle"
    finally:
        slurm.cluster.configure({"Epilog": "/opt/udi/bin/udi-slurm-epilog"})
        slurm.cluster.root(LOGIN, "scontrol", "reconfigure")
    assert job in admin(slurm, "n1", "status").stdout
    recovered = admin(slurm, "n1", "recover", "n1")
    assert recovered.returncode == 0, recovered.stderr
    slurm.await_clean()


def test_status_and_takedown_of_a_running_job(slurm: Slurm) -> None:
    """A job that runs is Slurm's to end."""
    job = running(slurm)
    shown = admin(slurm, "n1", "status")
    assert (shown.returncode, job in shown.stdout) == (0, True), shown.stderr
    assert job not in admin(slurm, "n2", "status").stdout
    refused = admin(slurm, "n1", "takedown", job)
    assert refused.returncode != 0 and f"job {job} runs on this node" in refused.stderr
    absent = admin(slurm, "n2", "takedown", job)
    assert absent.returncode != 0 and f"nothing of job {job} is on this node" in absent.stderr
    assert slurm.roots("n1") == {job}
    end(slurm, job)
    slurm.await_clean()
    assert slurm.tasks("n1") == []
