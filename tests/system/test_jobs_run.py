"""Jobs that run: inside the image, as their user, and the nodes are afterwards as they were before."""

from __future__ import annotations

import os
import re

from tests.system.cray import MOM_PRIV, A, B, Cray
from tests.system.scripts import expected, ranks
from xcsim.processes import wait_until

ALICE = 1001
SLEEP = "touch /scratch/alice/up; exec sleep 60"
UP = "until [ -e /scratch/alice/up ]; do sleep 0.05; done\n"


def started(cray: Cray, script: str, *, nodes: int = 2, sign: str = "/scratch/alice/up") -> str:
    """A job of alice's whose application is in the middle of its work."""
    cray.machine.path(sign).unlink(missing_ok=True)
    job = cray.qsub("alice", script, nodes=nodes)
    cray.running(job, sign)
    return job


def test_two_ranks_a_node_run_in_the_image_as_the_user(cray: Cray) -> None:
    ended = cray.run("alice", ranks(4), nodes=4)
    assert (ended.state, ended.status, ended.starts, ended.error) == ("C", "0", 1, "")
    assert sorted(ended.output.splitlines()) == expected(cray.marker("tiny:1"), ALICE, 4)
    assert (
        len(
            [
                line
                for line in ended.log
                if re.search(r"ready on 4 nodes; slowest nid\d{5} \d+ ms.*; median \d+ ms$", line)
            ]
        )
        == 1
    )
    cray.assert_clean()


def test_what_a_rank_finds_in_the_root(cray: Cray) -> None:
    script = """aprun -q -n 1 -b sh -c '
        cd /; id -u; id -G; cat /var/nodelist; echo list end
        touch /etc/new 2>&1; touch /bin/new 2>&1; touch /new 2>&1
        echo mine > /output/from-node; cat /tmp/any 2>/dev/null; touch /tmp/any && echo tmp is mine
        while read source target kind flags rest; do echo mount $target $flags; done </proc/mounts'
        aprun -q -n 1 -b /opt/udi/bin/udi-run
        aprun -q -n 1 -b /opt/udi/bin/udi-run sh -c 'echo "$GREETING" in $PWD'
        """
    ended = cray.run("alice", script, more="UDI_VOLUMES=/scratch/alice:/output")
    lines = ended.output.splitlines()
    assert lines[:2] == ["1001", "1001 2001"]
    listed = lines[2 : lines.index("list end")]
    assert len(listed) == 4 and len(set(listed)) == 2
    refusals = [line for line in lines if "Read-only file system" in line or "Permission denied" in line]
    assert len(refusals) == 3 and "tmp is mine" in lines
    mounts = {words[1]: words[2].split(",") for line in lines if (words := line.split())[0] == "mount"}
    assert {"/", "/output", "/scratch", "/tmp", "/proc", "/bin"} <= set(mounts)
    assert [target for target, flags in mounts.items() if "nosuid" not in flags] == []
    assert [target for target, flags in mounts.items() if "nodev" not in flags and not target.startswith("/dev")] == []
    assert lines[-2:] == ['entered in /analysis: it\'s "here" one two', 'it\'s "here" in /analysis']
    written = cray.machine.path("/scratch/alice/from-node")
    assert (written.read_text(), written.stat().st_uid) == ("mine\n", ALICE)
    cray.assert_clean()


def test_a_program_of_the_image_gets_no_rights_by_its_mode(cray: Cray) -> None:
    """A set-uid root program: the image is mounted nosuid, and apinit sets no_new_privs."""
    ended = cray.run("alice", ranks(1, "/usr/id -u; grep NoNewPrivs /proc/self/status"), nodes=1)
    assert sorted(ended.output.split()) == sorted(2 * ["1001", "NoNewPrivs:", "1"] + ["code", "0"])


def test_a_job_that_is_deleted_in_the_middle_leaves_nothing(cray: Cray) -> None:
    job = started(cray, ranks(2, SLEEP))
    assert cray.roots() == [A, B]
    cray.machine.run_as("alice", ["qdel", job], check=True)
    ended = cray.ended(job)
    assert (ended.status, cray.states()) == ("271", [])
    cray.assert_clean()


def test_a_job_that_passes_its_walltime_leaves_nothing(cray: Cray) -> None:
    job = cray.qsub("alice", ranks(2, SLEEP), "-l", "walltime=1")
    assert cray.ended(job).status == "271"
    cray.assert_clean()


def test_an_aprun_that_is_killed_leaves_nothing(cray: Cray) -> None:
    job = started(cray, "aprun -n 4 -N 2 -b sh -c '" + SLEEP + "' &\n" + UP + "sleep 2; kill -9 $!; wait; exit 7\n")
    assert cray.ended(job).status == "7"
    cray.assert_clean()


def test_processes_that_hold_the_image_after_the_job_are_ended(cray: Cray) -> None:
    """One leaves its session, one sits in a directory of the image, one has a file of a volume open."""
    holds = "setsid sleep 300 & cd /usr; setsid sleep 301 & setsid sleep 302 </output/held & touch /output/up"
    script = f"echo x >/scratch/alice/held\naprun -q -n 2 -N 1 -b sh -c '({holds}) >/dev/null 2>&1'\n"
    ended = cray.run("alice", script, more="UDI_VOLUMES=/scratch/alice:/output")
    assert ended.status == "0"
    cray.assert_clean()
    assert set(cray.statuses().values()) == {"up"}


def test_an_epilogue_that_runs_again_finds_nothing_to_do(cray: Cray) -> None:
    ended = cray.run("alice")
    attributes = cray.machine.job(ended.id)
    words = [ended.id, "alice", "alice", "STDIN", attributes["session_id"], "nodes=2", "", "batch", "", "0"]
    for script in ([], [f"{MOM_PRIV}/jobs/{ended.id}.SC"]):
        again = cray.machine.run_as("root", [f"{MOM_PRIV}/epilogue", *words, *script])
        assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert cray.log(ended.id) == ended.log
    cray.assert_clean()


def test_a_prologue_that_runs_again_makes_the_root_anew(cray: Cray) -> None:
    signs = [cray.machine.path(f"/scratch/alice/{name}") for name in ("up", "go")]
    for sign in signs:
        sign.unlink(missing_ok=True)
    script = "touch /scratch/alice/up; while [ ! -e /scratch/alice/go ]; do sleep 0.05; done\n" + ranks()
    job = cray.qsub("alice", script)
    cray.running(job, "/scratch/alice/up")
    words = [job, "alice", "alice", "STDIN", "nodes=2:ppn=2", "batch", "", f"{MOM_PRIV}/jobs/{job}.SC"]
    again = cray.machine.run_as("root", [f"{MOM_PRIV}/prologue", *words])
    assert (again.returncode, again.stderr) == (0, "")
    signs[1].touch()
    ended = cray.ended(job)
    assert sorted(ended.output.splitlines()) == expected(cray.marker("tiny:1"), ALICE)
    cray.assert_clean()


def test_a_mom_that_restarts_in_the_middle_of_a_job_takes_it_down(cray: Cray) -> None:
    job = started(cray, ranks(2, SLEEP))
    daemon = cray.machine.daemon
    assert daemon is not None
    daemon.kill()
    assert daemon.wait_gone(30)
    cray.machine.start_daemon()
    assert cray.ended(job).state == "C"
    cray.assert_clean()


def test_a_job_without_an_image_runs_on_the_node_and_starts_no_python(cray: Cray) -> None:
    """A Python that cannot be started would fail the job."""
    python = cray.machine.path("/opt/udi/lib/torque_hooks")
    hidden = python.with_name("torque_hooks.hidden")
    with cray.without_filter():
        python.rename(hidden)
        try:
            ended = cray.run("alice", "echo rootfs=$CRAY_ROOTFS\n" + ranks(2, "cat /etc/xcsim/nid; id -u"), image="")
        finally:
            hidden.rename(python)
    assert sorted(ended.output.split()) == sorted(
        ["rootfs=", str(A), str(A), str(B), str(B), "1001", "1001", "1001", "1001", "code", "0"]
    )
    assert (ended.log, ended.error) == ((), "")
    cray.assert_clean()


def test_a_job_with_an_empty_variable_is_a_job_without_an_image(cray: Cray) -> None:
    ended = cray.run("alice", ranks(2, "cat /etc/xcsim/nid"), image="", more="UDI=")
    assert ended.status == "0" and sorted(ended.output.split()) == sorted([str(A), str(A), str(B), str(B), "code", "0"])
    cray.assert_clean()


def test_a_job_on_the_login_node_alone_needs_no_root(cray: Cray) -> None:
    job = cray.machine.qsub("alice", ["-v", "UDI=tiny:1", "-l", "nodes=0"], "#!/bin/bash\necho ran\n")
    ended = cray.ended(job)
    assert (ended.status, ended.output) == ("0", "ran\n")
    assert wait_until(lambda: cray.states() == [], 30)


def test_volumes_anywhere_and_a_cache_of_each_node(cray: Cray) -> None:
    """A file, a place that the image lacks, a place in another volume, and a file system of each node's own."""
    for name in ("in", "out/deep"):
        cray.machine.path(f"/scratch/alice/{name}").mkdir(parents=True, exist_ok=True)
    cray.machine.path("/scratch/alice/settings").write_text("a=1\n")
    for path in ("in", "out", "out/deep", "settings"):
        os.chown(cray.machine.path(f"/scratch/alice/{path}"), 1001, 1001)
    volumes = (
        "/scratch/alice/settings:/etc2/settings:ro;/scratch/alice/out:/usr/share/new/out;"
        "/scratch/alice/in:/usr/share/new/out/deep;/scratch/alice:/cache:per-node=32M"
    )
    look = "cat /etc2/settings; ls -d /usr/share/new/out/deep; echo x > /cache/x; cat /cache/x"
    script = f"aprun -n 2 -N 1 -b /bin/sh -c '{look}'\n"
    ended = cray.run("alice", script, more=f"UDI_VOLUMES={volumes}")
    for line in ("a=1", "/usr/share/new/out/deep", "x"):
        assert ended.output.splitlines().count(line) == 2, ended
    assert not any(name.startswith(".udi") for name in os.listdir(cray.machine.path("/scratch/alice")))
    cray.assert_clean()


CRAY_MPI = ("/var/spool/alps", "/var/opt/cray", "/etc/opt/cray", "/usr/lib64/mpich")


def test_what_cray_s_mpi_needs_of_a_node_is_in_an_image_that_knows_nothing_of_it(cray: Cray) -> None:
    sites = [{"source": "/scratch"}, {"source": "/home"}, *({"source": path, "read_only": True} for path in CRAY_MPI)]
    for nid in (A, B):
        for path in CRAY_MPI:
            there = cray.machine.node(nid).path(path)
            there.mkdir(parents=True, exist_ok=True)
            (there / "mark").write_text(f"{path}\n")
    with cray.configured({"node": {"filesystems": sites}}):
        ended = cray.run("alice", f"aprun -n 2 -N 1 -b /bin/cat {' '.join(f'{path}/mark' for path in CRAY_MPI)}\n")
    for path in CRAY_MPI:
        assert ended.output.splitlines().count(path) == 2, ended
    for nid in (A, B):
        for path in CRAY_MPI:
            (cray.machine.node(nid).path(path) / "mark").unlink()
        for path in ("/var/spool/alps", "/var/opt/cray", "/var/opt", "/usr/lib64/mpich", "/usr/lib64", "/usr"):
            cray.machine.node(nid).path(path).rmdir()
    cray.assert_clean()
