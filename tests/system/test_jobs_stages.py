"""A prologue that fails, at each of its stages: what Torque does, what the user reads and where, and clean nodes."""

from __future__ import annotations

import pytest

from tests.system.cray import XTXQTCMD, A, B, Cray
from tests.system.endings import deleted_with, held_with
from xcsim.processes import wait_until

STORE = "/scratch/udi"


def test_no_such_image(cray: Cray) -> None:
    with cray.without_filter():
        deleted_with(
            cray.run("alice", image="tinny:1"),
            "image 'tinny:1' not found, or you do not have access to it (did you mean tiny:1?)",
        )
    cray.assert_clean()


def test_an_image_of_another_user_does_not_exist_either(cray: Cray) -> None:
    with cray.without_filter():
        others = cray.run("alice", image="secret:1")
        nobodys = cray.run("alice", image="absent:1")
        by_id = cray.run("alice", image=f"id:{cray.ids['secret:1']}")
    deleted_with(others, "image 'secret:1' not found, or you do not have access to it")
    assert others.error.replace("secret:1", "absent:1") == nobodys.error
    deleted_with(by_id, "you do not have access to it")
    cray.assert_clean()


@pytest.mark.parametrize(
    ("volumes", "words"),
    [
        ("/etc:/output", "source /etc is not in a directory that the site allows"),
        ("/scratch/alice:/etc", "no volume may be mounted on /etc"),
        (";".join(f"/scratch/alice:/v{number}" for number in range(40)), "40 volumes requested, the site allows 32"),
    ],
)
def test_a_volume_that_the_site_refuses(cray: Cray, volumes: str, words: str) -> None:
    with cray.without_filter():
        deleted_with(cray.run("alice", more=f"UDI_VOLUMES={volumes}"), words)
    cray.assert_clean()


@pytest.mark.parametrize(
    ("volumes", "words"),
    [
        ("/scratch/bob/inner:/output", "Permission denied"),
        ("/scratch/alice/no-such:/output", "No such file or directory"),
        ("/scratch/alice:/usr/no/such/place", "/usr/no/such/place"),
        ("/scratch/alice/to-etc:/output", "outside"),
    ],
)
def test_a_volume_that_the_node_refuses(cray: Cray, volumes: str, words: str) -> None:
    link = cray.machine.path("/scratch/alice/to-etc")
    link.unlink(missing_ok=True)
    link.symlink_to("/etc")
    cray.machine.path("/scratch/bob/inner").mkdir(exist_ok=True)
    deleted_with(cray.run("alice", more=f"UDI_VOLUMES={volumes}"), f"setup on nid[{A:05d}-{B:05d}]: ", words)
    cray.assert_clean()


def test_an_image_file_that_is_broken(cray: Cray) -> None:
    image_id = cray.pull("alice", "broken:1")
    path = cray.machine.path(f"{STORE}/images/{image_id}.squashfs")
    path.chmod(0o600)
    path.write_bytes(b"no file system")
    path.chmod(0o444)
    deleted_with(cray.run("alice", image="broken:1"), "no squashfs file system in it")
    path.unlink()
    deleted_with(cray.run("alice", image="broken:1"), "has facts but no file in the store (pull it again)")
    cray.udi("alice", "rm", "broken:1")
    cray.assert_clean()


def test_the_reservation_is_gone(cray: Cray) -> None:
    cray.machine.set_fault("reservation-gone")
    with cray.configured({"alps": {"reservation_wait": 1}, "torque": {"max_starts": 1}}):
        ended = cray.run("alice")
    words = f"ALPS lists no reservation of job {ended.id} (the job has nodes, so ALPS should have a reservation)"
    held_with(ended, words, starts=1)
    cray.assert_clean()


def test_the_plan_cannot_be_written(cray: Cray) -> None:
    plans = cray.machine.path(f"{STORE}/plans")
    plans.mkdir(exist_ok=True)
    owner, mode = plans.stat(), plans.stat().st_mode & 0o7777
    plans.chmod(0o555)
    try:
        held_with(cray.run("alice"), "the plan cannot be written to the image store", "Permission denied")
    finally:
        plans.chmod(mode)
    assert owner.st_uid == 990
    cray.assert_clean()


def test_the_store_is_away(cray: Cray) -> None:
    refs = cray.machine.path(f"{STORE}/refs")
    refs.chmod(0)
    try:
        with cray.without_filter():
            ended = cray.run("alice", image=f"id:{cray.ids['tiny:1']}")
    finally:
        refs.chmod(0o755)
    held_with(ended, "image store", "Permission denied")
    cray.assert_clean()


def test_the_fan_out_tool_is_missing(cray: Cray) -> None:
    tool = cray.machine.path(XTXQTCMD)
    kept = tool.with_name("xtxqtcmd.kept")
    tool.rename(kept)
    try:
        held_with(cray.run("alice"), f"{XTXQTCMD} is not an executable program (see alps.xtxqtcmd in udi.toml)")
    finally:
        kept.rename(tool)
    cray.assert_clean()
    assert "dirty" not in cray.admin("status")


def test_the_node_software_is_missing(cray: Cray) -> None:
    with cray.configured({"node": {"zip": "/dsl/opt/udi/node/gone.zip"}, "torque": {"max_starts": 1}}):
        job = cray.qsub("alice", "true\n")
        ended = cray.ended(job)
    assert (ended.state, ended.codes) == ("H", [2])
    assert "no answer: xtxqtcmd exited with 0" in ended.error
    assert {cray.statuses()[nid] for nid in (A, B)} == {"admindown"}
    assert "not brought back" not in cray.admin("recover", f"{A}-{B}")
    cray.assert_clean()


def test_a_plan_of_another_version_is_refused_by_the_node(cray: Cray) -> None:
    """The shared root has newer node software than the MOM node."""
    library = cray.machine.path("/opt/udi/lib/udiroot/plan.py")
    text = library.read_text()
    assert 'VERSION = "2"' in text
    install = ["/opt/udi/bin/udi-admin", "install"]
    library.write_text(text.replace('VERSION = "2"', 'VERSION = "1000"'))
    try:
        cray.machine.run_as("root", install, check=True)
        library.write_text(text)
        held_with(cray.run("alice"), "plan: begins with 'udi-plan 2'; this node reads 'udi-plan 1000'")
    finally:
        library.write_text(text)
        cray.machine.run_as("root", install, check=True)
    cray.assert_clean()


def test_no_configuration(cray: Cray) -> None:
    path = cray.machine.path("/etc/udi/udi.toml")
    text = path.read_text()
    path.write_text(text + "[etc]\nnameserver = 3\n")
    try:
        with cray.without_filter():
            job = cray.qsub("alice", "true\n")
            assert wait_until(
                lambda: "unknown key etc.nameserver (did you mean etc.nameservers?)" in cray.text(job, "Error"), 10, 0.1
            )
            seen = cray.machine.job(job)
        assert "unknown key etc.nameserver" in cray.admin("check-config", code=2)
        assert "did you mean etc.nameservers?" in cray.admin("check-config", code=2)
    finally:
        path.write_text(text)
    assert int(seen.get("start_count", "0")) < 3
    cray.machine.run_as("alice", ["qdel", job])
    cray.assert_clean()
