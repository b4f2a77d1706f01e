"""The health check tells a job that runs from what one left, and drains by itself; a drained node is recovered."""

from __future__ import annotations

import subprocess

import pytest

from tests.slurm.hooks_node import NODE, UID, HooksNode, has_needs, made_node, node
from xcsim.processes import wait_until

__all__ = ["made_node", "node"]
pytestmark = pytest.mark.skipif(not has_needs(), reason="needs root, and the programs that make setup installs")


def test_a_clean_node(node: HooksNode) -> None:
    assert node.run("health") == 0
    assert node.calls() == [] and node.calls("squeue") == []


@pytest.mark.parametrize("state", ["RUNNING", "CONFIGURING", "SUSPENDED", "COMPLETING"])
def test_a_job_that_runs_or_ends_here_is_busy(node: HooksNode, state: str) -> None:
    assert node.run("prolog") == 0
    node.queue("7", state)
    assert node.run("health") == 0 and node.calls() == []


@pytest.mark.parametrize(
    "says",
    [
        "",
        "7|7|COMPLETED|0|n[1-2]|(null)\n",
        "7|7|PENDING|1||(null)\n",
        "7|7|RUNNING|1|n[2-3],n11|(null)\n",
        "8|7_1|RUNNING|0|n1|(null)\n7|7_2|FAILED|0|n1|(null)\n",
    ],
    ids=["gone", "ended", "queued again", "runs elsewhere", "of an array"],
)
def test_what_is_left_drains_the_node_once(node: HooksNode, says: str) -> None:
    assert node.run("prolog") == 0
    if says:
        node.says("squeue.7", says)
    assert node.run("health") == 1
    (told,) = node.told()
    assert told.startswith(f"update nodename={NODE} state=drain reason=shifter-xc: left by 7 (set up ")
    assert "mounts (last on" in told and "record" in told
    assert node.run("health") == 1 and node.told() == []


def test_a_note_alone_is_left_too(node: HooksNode) -> None:
    assert node.run("prolog", image="tiny:2") == 0
    assert node.run("health") == 1
    assert node.told() == [f"update nodename={NODE} state=drain reason=shifter-xc: left by 7: note"]


def test_a_node_whose_slurmctld_does_not_answer_is_not_drained(node: HooksNode) -> None:
    assert node.run("prolog") == 0
    node.says("down")
    assert node.run("health") == 0
    assert "Unable to contact slurm controller" in node.log()


def test_a_hook_that_works_is_busy(node: HooksNode) -> None:
    """Its job may be gone at slurmctld, if a person removed it by force."""
    node.says("setupRoot.waits")
    prolog = node.start("prolog")
    assert wait_until((node.bin / "setupRoot.waiting").exists, 30, 0.02)
    assert node.run("health") == 0 and node.calls() == []
    node.done("setupRoot.waits")
    assert node.end(prolog) == 0


def test_one_of_two_jobs_is_left(node: HooksNode) -> None:
    assert node.run("prolog", "7") == node.run("prolog", "8") == 0
    node.queue("8")
    assert node.run("health") == 1
    assert "left by 7 (" in node.told()[0]
    node.in_node(f"""
        from slurm_hooks.recovery import clean_here, resume
        assert clean_here(site, "{NODE}", Deadline(30)) == ("7",)
        assert resume(site, "{NODE}", Deadline(30)) == ""
    """)
    assert node.told() == [f"update nodename={NODE} state=resume"]
    assert node.mounts("7") == [] and node.note("7") is None and node.mounts("8")


def test_recovery_leaves_a_node_that_is_not_clean_or_not_ours(node: HooksNode) -> None:
    assert node.run("prolog") == 0
    node.says("unsetupRoot.says", "failed 5 8 7 mounts=3 held by 12 (vi)")
    node.in_node(f"""
        from slurm_hooks.recovery import clean_here
        from udiroot.errors import TeardownIncomplete
        try:
            clean_here(site, "{NODE}", Deadline(30))
        except TeardownIncomplete as error:
            assert "job 7: held by 12 (vi)" in error.message, error.message
        else:
            raise AssertionError("a node that is not clean counts as clean")
    """)
    node.says("node", "   State=IDLE+DRAIN X=1\n   Reason=disk is old [root@2026]\n")
    node.in_node(f"""
        from slurm_hooks.recovery import resume
        assert resume(site, "{NODE}", Deadline(30)) == "drained by others: disk is old"
    """)
    assert node.told() == []


def test_a_label_that_a_user_gave_a_mount_of_fuse(node: HooksNode) -> None:
    """As fusermount(1) does for any user, with `fsname`."""
    point = f"{node.directory}/scratch/alice"
    node.in_node(f"""
        import ctypes, os
        options = f"fd={{os.open('/dev/fuse', os.O_RDWR)}},rootmode=40000,user_id={UID},group_id={UID}"
        done = ctypes.CDLL(None, use_errno=True).mount(b"udi:7:{UID}:made", b"{point}", b"fuse", 6, options.encode())
        assert done == 0, os.strerror(ctypes.get_errno())
    """)
    assert "udi:7:" in node.shell("cat /proc/self/mountinfo").stdout
    try:
        assert node.run("health") == node.run("epilog") == 0
        assert node.told() == []
        assert "udi:7:" in node.shell("cat /proc/self/mountinfo").stdout
    finally:
        node.shell(f"umount {point}")


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("Duplicate jobid", "drained by Slurm (Duplicate jobid), and steps of jobs that have ended run on: "),
        ("Kill task failed", "drained by others: Kill task failed"),
    ],
)
def test_a_reason_of_slurms_own(node: HooksNode, reason: str, said: str) -> None:
    """A step of an ended job still runs, as does one of a job that Slurm knows; a user's program has the same name."""
    started = []
    for title, uid in (("[70000001.batch]", 0), ("[70000002.0]", 0), ("[70000003.0]", UID)):
        words = ["setpriv", f"--reuid={uid}", "--clear-groups", "bash", "-c", f"exec -a 'slurmstepd: {title}' sleep 99"]
        started.append(subprocess.Popen(words))
    node.says("squeue.70000002", "70000002|70000002|RUNNING|1|n1|(null)\n")
    node.says("node", f"   State=IDLE+DRAIN X=1\n   Reason={reason} [slurm@2026-01-01T00:00:00]\n")
    try:
        node.in_node(f"""
            import time
            from slurm_hooks.recovery import resume
            from slurm_hooks.steps import jobs_with_steps
            ends = time.monotonic() + 30
            while not jobs_with_steps() >= {{"70000001", "70000002"}} and time.monotonic() < ends:
                time.sleep(0.02)
            found = resume(site, "{NODE}", Deadline(30))
            assert found.startswith("{said}"), found
            assert ("70000001" in found) == ("steps" in found), found
            assert "70000002" not in found and "70000003" not in found, found
        """)
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert node.told() == []


def test_a_job_that_starts_meanwhile_is_busy(node: HooksNode) -> None:
    """A job that was queued when Slurm was asked may have its root by then, and run."""
    assert node.run("prolog") == 0
    node.says("squeue.7", "7|7|PENDING|1||(null)\n")
    node.in_node(f"""
        from slurm_hooks import leaks
        from slurm_hooks.commands import Slurm
        from slurm_hooks.settings import SlurmConfig
        slurm = Slurm(site.table(SlurmConfig))
        asked = slurm.job
        def job(name, deadline):
            found = asked(name, deadline)
            open("{node.bin}/squeue.7", "w").write("7|7|RUNNING|1|n1|(null)\\n")
            return found
        slurm.job = job
        found = leaks.examine(site, slurm, "{NODE}", Deadline(30))
        assert (found.busy, found.leaked) == (frozenset("7"), frozenset()), found
    """)
