"""A prologue that fails, at each of its stages: what Torque does, what the user reads and where, and clean nodes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.system.cray import XTXQTCMD, A, B, C, Cray
from tests.system.endings import deleted_with, held_with
from tests.system.scripts import ranks
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
        (
            "/scratch/alice:/output;/scratch/alice:/output/no/such",
            "'/output/no/such' (in volume /scratch/alice:",
        ),
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
        held_with(cray.run("alice"), "the plan cannot be written to the image store", "permission denied")
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
    held_with(ended, "image store", "permission denied")
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


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"zip": "/dsl/opt/udi/node/gone.zip"}, "exit code 1: "),
        ({"python": ["/dsl/lib/ld-linux.so.9", "/dsl/usr/bin/python3"]}, "exit code 127: "),
        ({"python": ["/bin/false"]}, "exit code 1 without a message"),
        ({"python": ["/bin/true"]}, "exit code 0 without a message"),
        ({"nid_file": "/no/such/file"}, "exit code 7: no nid in /no/such/file"),
    ],
)
def test_the_node_software_cannot_start(cray: Cray, node: dict[str, object], words: str) -> None:
    """It is the site's fault; the nodes have nothing of the job on them, and stay in service. The second start may get
    others, while those of the first are checked."""
    with cray.configured({"node": node}):
        ended = cray.run("alice")
    held_with(ended, f"]: could not start: {words}")
    assert re.match(r"udi-prologue: setup on nid\[\d{5}-\d{5}\]: ", ended.error)
    assert any(" ERROR setup: " in line and words in line for line in ended.log)
    assert set(cray.statuses().values()) == {"up"}
    assert "dirty" not in cray.admin("status")
    cray.assert_clean()


@contextmanager
def another_version(cray: Cray, *nids: int) -> Iterator[None]:
    """These nodes read software of another version, as one does that has kept an old file of the shared root.

    The other version is longer: what Python compiled of a file is good for all that have its size and second.
    """
    plan, link = cray.machine.path("/opt/udi/lib/udiroot/plan.py"), cray.machine.path("/opt/udi/node/udi.zip")
    text = plan.read_text()
    changed = text.replace('VERSION = "3"', 'VERSION = "1000"')
    assert changed != text
    try:
        plan.write_text(changed)
        cray.admin("install")
        other = os.readlink(link)
    finally:
        plan.write_text(text)
        cray.admin("install")
    target = f"/dsl/opt/udi/node/{os.readlink(link)}"
    nodes = [cray.machine.node(nid) for nid in nids]
    for node in nodes:
        node.run(["mount", "-o", "bind", f"/dsl/opt/udi/node/{other}", target], check=True)
    try:
        yield
    finally:
        for node in nodes:
            node.run(["umount", target], check=True)


def test_some_nodes_have_another_version(cray: Cray) -> None:
    """They are named, in one line for the cause. Nothing of the job is left on them or on the others."""
    with another_version(cray, B, C):
        ended = cray.run("alice", ranks(4), nodes=4)
    cause = "plan: begins with 'udi-plan 3'; this node reads 'udi-plan 1000'"
    held_with(ended, f"setup on nid[{B:05d}-{C:05d}]: {cause}")
    told = [line.split(" ERROR setup: ", 1)[1] for line in ended.log if " ERROR setup: " in line]
    assert told == 2 * [f"nid[{B:05d}-{C:05d}]: {cause}"]
    assert set(cray.statuses().values()) == {"up"}
    assert "dirty" not in cray.admin("status")
    cray.assert_clean()


def test_the_node_software_disappears_during_a_job(cray: Cray) -> None:
    """No node can be cleaned then, by no fault of its own: we leave all in service, on record, until they can be."""
    go = cray.machine.path("/scratch/alice/go")
    go.unlink(missing_ok=True)
    job = cray.qsub("alice", "while [ ! -e /scratch/alice/go ]; do sleep 0.05; done\n" + ranks())
    cray.running(job)
    software = cray.machine.path("/opt/udi/node")
    kept = software.with_name("node.kept")
    software.rename(kept)
    try:
        go.touch()
        ended = cray.ended(job)
    finally:
        kept.rename(software)
    assert (ended.status, ended.error) == (
        "0",
        f"udi-epilogue: cleanup failed on nid[{A:05d}-{B:05d}] by a site error; no action needed\n",
    )
    assert any(" ERROR " in line and "left in service" in line for line in ended.log)
    assert not any("taken out of service" in line for line in ended.log)
    assert cray.roots() == [A, B]
    assert wait_until(lambda: [nid for nid, state in cray.statuses().items() if state != "up"] == [A, B], 30, 0.05)
    assert f"nid[{A:05d}-{B:05d}]: admindown, dirty since" in cray.admin("status")
    assert cray.admin("recover", f"{A}-{B}").count(": clean and up") == 2
    cray.assert_clean()


@pytest.mark.parametrize("damage", ["not mounted", "no directory", "a file"])
def test_the_store_is_missing(cray: Cray, damage: str) -> None:
    """No image can be found then; that is not the user's fault, whose job must not be deleted for it."""
    store = cray.machine.path(STORE)
    kept = store.with_name("kept")
    store.rename(kept)
    try:
        if damage == "not mounted":
            store.mkdir()
        elif damage == "a file":
            store.write_text("")
        with cray.without_filter():
            ended = cray.run("alice")
    finally:
        if store.is_dir():
            store.rmdir()
        elif store.exists():
            store.unlink()
        kept.rename(store)
    held_with(ended, f"image store {STORE} cannot be used: ", "is its file system mounted on this host")
    cray.assert_clean()


def test_a_plan_of_another_version_is_refused_by_the_node(cray: Cray) -> None:
    """The shared root has newer node software than the MOM node."""
    library = cray.machine.path("/opt/udi/lib/udiroot/plan.py")
    text = library.read_text()
    assert 'VERSION = "3"' in text
    install = ["/opt/udi/bin/udi-admin", "install"]
    library.write_text(text.replace('VERSION = "3"', 'VERSION = "1000"'))
    try:
        cray.machine.run_as("root", install, check=True)
        library.write_text(text)
        held_with(cray.run("alice"), "plan: begins with 'udi-plan 3'; this node reads 'udi-plan 1000'")
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
                lambda: "unknown key etc.nameserver (did you mean etc.nameservers?)" in cray.text(job, "Error"), 30, 0.1
            )
            seen = cray.machine.job(job)
        assert "unknown key etc.nameserver" in cray.admin("check-config", code=2)
        assert "did you mean etc.nameservers?" in cray.admin("check-config", code=2)
    finally:
        path.write_text(text)
    assert int(seen.get("start_count", "0")) < 3
    cray.machine.run_as("alice", ["qdel", job])
    cray.assert_clean()
