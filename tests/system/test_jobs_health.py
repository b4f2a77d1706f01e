"""Cray's own health check, at the end of a reservation: what is ours counts, what is another program's does not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

from tests.system.cray import NHC_LOG, STATE, A, B, C, Cray
from tests.system.scripts import expected, ranks
from xcsim.processes import wait_until

ALICE = 1001
CHECK = "/dsl/opt/udi/node/nodehealth-check"


def check(cray: Cray, nid: int) -> tuple[int, str]:
    """Exit code of the check on a node, and what it says."""
    done = cray.machine.node(nid).run(["/bin/sh", "-c", CHECK])
    return done.returncode, done.stdout + done.stderr


def health_log(cray: Cray) -> list[str]:
    path = cray.machine.path(NHC_LOG)
    return path.read_text().splitlines() if path.exists() else []


def test_a_clean_node_passes(cray: Cray) -> None:
    logged = len(health_log(cray))
    assert cray.run("alice").status == "0"
    cray.assert_clean()
    assert check(cray, A) == (0, "plugin: udi: clean\n")
    assert health_log(cray)[logged:] == []
    assert set(cray.statuses().values()) == {"up"}


def test_a_node_with_a_root_is_dirty_and_says_whose(cray: Cray) -> None:
    """Also where libplugin.sh is not there."""
    sign = cray.machine.path("/scratch/alice/go")
    sign.unlink(missing_ok=True)
    job = cray.qsub("alice", "while [ ! -e /scratch/alice/go ]; do sleep 0.05; done\n")
    cray.running(job)
    code, said = check(cray, A)
    assert (code, said.count("\n")) == (1, 1)
    assert said.startswith(f"plugin: udi: left by {job} (set up 20") and " mounts (last on /var/udi" in said
    assert "1 loop device (/dev/loop" in said and said.endswith("; record\n")
    cray.machine.node(A).run(["mv", "/opt/cray/nodehealth/default/bin/libplugin.sh", "/tmp/kept"], check=True)
    bare = check(cray, A)
    cray.machine.node(A).run(["mv", "/tmp/kept", "/opt/cray/nodehealth/default/bin/libplugin.sh"], check=True)
    assert bare == (1, said.removeprefix("plugin: "))
    sign.touch()
    assert cray.ended(job).status == "0"
    cray.assert_clean()


def test_nodes_that_no_epilogue_cleaned_go_out_of_service(cray: Cray) -> None:
    """The MOM node lost its state in the middle of the job: the health checker finds what is left, and says it."""
    job = cray.qsub("alice", "while [ ! -e /scratch/alice/go ]; do sleep 0.05; done\n")
    cray.machine.path("/scratch/alice/go").unlink(missing_ok=True)
    cray.running(job)
    directory = cray.machine.path(f"{STATE}/jobs/{job}")
    cray.machine.path(json.loads((directory / "state.json").read_text())["plan"]).unlink()
    shutil.rmtree(directory)
    cray.machine.path("/scratch/alice/go").touch()
    assert cray.ended(job).status == "0"
    assert wait_until(lambda: {cray.statuses()[nid] for nid in (A, B)} == {"admindown"}, 30, 0.1)
    assert cray.statuses()[C] == "up" and cray.roots() == [A, B]
    told = [line for line in health_log(cray) if f": left by {job} (set up 20" in line]
    assert len(told) == 2 and all(": plugin: udi: " in line for line in told)
    assert sorted(line.partition("FAILURES: ")[2].split(":")[0] for line in told) == [f"nid{A:05d}", f"nid{B:05d}"]

    said = cray.admin("recover", f"{A},{B}")
    assert said == f"nid{A:05d}: clean and up\nnid{B:05d}: clean and up\n"
    assert check(cray, A) == check(cray, B) == (0, "plugin: udi: clean\n")
    cray.assert_clean()


def test_recovery_leaves_a_running_job_s_node_alone(cray: Cray) -> None:
    job = cray.qsub("alice", "while [ ! -e /scratch/alice/go ]; do sleep 0.05; done\n")
    cray.machine.path("/scratch/alice/go").unlink(missing_ok=True)
    cray.running(job)
    assert "skipped: not taken out of service by shifter-xc" in cray.admin("recover", str(A), code=8)
    assert A in cray.roots()
    cray.machine.path("/scratch/alice/go").touch()
    assert cray.ended(job).status == "0"


def test_what_another_program_left_is_not_our_dirt(cray: Cray) -> None:
    node = cray.machine.node(A)
    other = cray.machine.path("/scratch/alice/other.img")
    with other.open("wb") as stream:
        stream.truncate(1 << 20)
    device = subprocess.run(["losetup", "--find", "--show", other], check=True, capture_output=True, text=True)
    node.run(["/bin/sh", "-c", "mkdir /tmp/other; mount -t tmpfs udi /tmp/other"], check=True)
    try:
        assert check(cray, A) == (0, "plugin: udi: clean\n")
        ended = cray.run("alice", ranks())
        assert sorted(ended.output.splitlines()) == expected(cray.marker("tiny:1"), ALICE)
        assert check(cray, A) == (0, "plugin: udi: clean\n")
        assert os.path.ismount(node.path("/tmp/other"))
        assert subprocess.run(["losetup", device.stdout.strip()], check=False, capture_output=True).returncode == 0
    finally:
        subprocess.run(["losetup", "--detach", device.stdout.strip()], check=False)
        node.run(["/bin/sh", "-c", "umount /tmp/other; rmdir /tmp/other"])
    cray.assert_clean()
    assert set(cray.statuses().values()) == {"up"}
