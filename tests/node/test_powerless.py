"""Files by which an image could give its user another's rights: they have no effect in a root, whatever the format.

Our gateway drops most of it; here the images are made by hand, as if it had not.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.node import faults
from tests.node.rig import ALICE, STORE_UID, Rig, make_tree
from udiroot.plan import PlanMount, PlanStep

_ALL_CAPABILITIES = struct.pack("<5I", 0x02000001, 0xFFFFFFFF, 0, 0x1FF, 0)
"""security.capability, version 2, all of them permitted and effective."""


def _armed_tree(directory: Path) -> None:
    make_tree(directory)
    busybox = (directory / "bin/busybox").read_bytes()
    for name in ("busybox-suid", "busybox-capable"):
        (directory / "bin" / name).write_bytes(busybox)
    (directory / "bin/busybox-suid").chmod(0o6755)
    (directory / "bin/busybox-capable").chmod(0o755)
    os.setxattr(directory / "bin/busybox-capable", "security.capability", _ALL_CAPABILITIES)
    for name, kind, device in (("null", 0o020666, (1, 3)), ("memory", 0o020666, (1, 1)), ("disk", 0o060666, (7, 0))):
        os.mknod(directory / "data" / name, kind, os.makedev(*device))
        (directory / "data" / name).chmod(0o666)
    (directory / "data/secret").write_text("secret\n")
    (directory / "data/secret").chmod(0o600)


@pytest.fixture(params=["squashfs", "ext4", "directory"])
def armed(rig: Rig, request: pytest.FixtureRequest) -> Iterator[Rig]:
    """A node with a root of an image full of set-uid programs, device nodes and file capabilities."""
    kind = str(request.param)
    path = rig.directory / f"store/images/armed.{kind}"
    if not path.exists():
        if kind == "directory":
            _armed_tree(path)
            os.chown(path, STORE_UID, STORE_UID)
        else:
            tree = rig.directory / "armed-tree"
            shutil.rmtree(tree, ignore_errors=True)
            _armed_tree(tree)
            rig.make_image(kind, "armed", tree)
    before = rig.picture()
    done = rig.set_up(rig.plan(image_format=kind, image_path=f"/lus/udi/images/{path.name}"))
    assert done.ok, done.words
    yield rig
    assert rig.tear_down().ok
    assert before.difference(rig.picture()) == []


def test_set_uid_programs_run_as_the_user(armed: Rig) -> None:
    assert armed.inside("/bin/busybox-suid id -u; /bin/busybox-suid id -g").stdout.split()[-2:] == [
        str(ALICE.uid),
        str(ALICE.gid),
    ]


def test_file_capabilities_give_none(armed: Rig) -> None:
    assert armed.inside("/bin/busybox-capable grep CapEff /proc/self/status").stdout.split() == ["CapEff:", "0" * 16]
    assert "Permission denied" in armed.inside("/bin/busybox-capable cat /data/secret").stderr


def test_device_nodes_open_nothing(armed: Rig) -> None:
    for name in ("null", "memory", "disk"):
        assert "Permission denied" in armed.inside(f"cat /data/{name}").stderr, name


def test_nothing_of_the_image_is_run_by_set_up_or_teardown(rig: Rig) -> None:
    """There is no fork and no exec on the way, so nothing of anybody's is run, least of all the image's."""
    plan = rig.plan()
    calls = (*faults.set_up(rig, plan).calls, *faults.tear_down(rig, plan.job).calls)
    assert len(calls) > 80
    assert {"fork", "posix_spawn"}.isdisjoint(calls)


def test_record_plan_and_directories_are_root_s_and_the_store_s_alone(rig: Rig) -> None:
    plan = rig.plan()
    path, _ = rig.send(plan)
    assert rig.set_up(plan).ok
    shown = rig.node.run(["/bin/stat", "-c", "%a %u %n", "/var/run/udi", "/var/run/udi/job", path]).stdout
    assert shown == f"700 0 /var/run/udi\n600 0 /var/run/udi/job\n400 {STORE_UID} {path}\n"
    assert rig.tear_down().ok


def test_a_run_directory_that_others_may_enter_is_refused(rig: Rig) -> None:
    """Then another user has created it."""
    assert rig.node.run(["/bin/mkdir", "-m", "777", "/var/run/udi"]).returncode == 0
    report = rig.set_up(rig.plan())
    assert rig.node.run(["/bin/rmdir", "/var/run/udi"]).returncode == 0
    assert (report.code, "must be owned by root and closed to all others" in report.words) == (7, True)


@pytest.mark.parametrize("kernel", faults.KERNELS)
def test_what_is_mounted_below_a_site_file_system_is_safe_too(rig: Rig, kernel: str) -> None:
    """Read-only, nosuid and nodev hold for each mount below, whichever calls the kernel has."""
    assert rig.node.run(["/bin/mount", "-t", "tmpfs", "below", "/projects"]).returncode == 0
    script = "mkdir /projects/sub && mount -t tmpfs -o noatime deep /projects/sub"
    assert rig.node.run(["/bin/sh", "-c", script]).returncode == 0
    before = rig.picture()
    done = faults.set_up(rig, rig.plan(), faults.Fault(kernel=kernel))
    assert done.report
    assert done.report.ok, done.report.words
    lines = rig.inside("cat /proc/self/mountinfo").stdout.splitlines()
    options = {line.split()[4]: line.split()[5].split(",") for line in lines}
    for point in ("/projects", "/projects/sub"):
        assert {"ro", "nosuid", "nodev"} <= set(options[point]), point
    assert "noatime" in options["/projects/sub"]
    assert rig.node.run(["/bin/touch", "/projects/sub/x"]).returncode == 0
    assert rig.tear_down().ok
    assert rig.node.run(["/bin/rm", "/projects/sub/x"]).returncode == 0
    assert before.difference(rig.picture()) == []
    assert rig.node.run(["/bin/umount", "/projects/sub"]).returncode == 0
    assert rig.node.run(["/bin/umount", "/projects"]).returncode == 0


def test_nothing_spreads_from_a_node_whose_mounts_are_shared(rig: Rig) -> None:
    """Most systems share their mounts; what is mounted later on either side stays there."""
    assert rig.node.run(["/bin/mount", "-t", "tmpfs", "ours", "/projects"]).returncode == 0
    share = "import ctypes; ctypes.CDLL(None).mount(b'', b'/projects', None, ctypes.c_ulong(1 << 20), None)"
    rig.node.run([*rig.site.node.python, "-I", "-S", "-c", share], check=True)
    assert "shared:" in rig.node.run(["/bin/grep", " /projects ", "/proc/self/mountinfo"]).stdout
    before = rig.picture()
    assert rig.set_up(rig.plan()).ok
    assert rig.node.run(["/bin/sh", "-c", "mkdir /projects/later && mount -t tmpfs x /projects/later"]).returncode == 0
    assert "/projects/later " not in rig.inside("cat /proc/self/mountinfo").stdout
    assert rig.node.run(["/bin/sh", "-c", "umount /projects/later && rmdir /projects/later"]).returncode == 0
    assert rig.tear_down().ok
    assert before.difference(rig.picture()) == []
    assert rig.node.run(["/bin/umount", "/projects"]).returncode == 0


def test_steps_of_the_site(rig: Rig) -> None:
    before = rig.picture()
    (rig.directory / "projects/tools").mkdir(exist_ok=True)
    (rig.directory / "projects/tools/conf").write_text("a=1\n")
    steps = (
        PlanStep("before", "directory", "", "/opt/site/empty"),
        PlanStep("before", "directory", "", "/mnt2"),
        PlanStep("after", "bind", "/projects/tools", "/opt/site/tools"),
        PlanStep("after", "bind", "/projects/tools/conf", "/etc/site.conf"),
        PlanStep("after", "link", "../opt/site/tools/conf", "/etc/linked.conf"),
    )
    done = rig.set_up(rig.plan(steps=steps))
    assert done.ok, done.words
    assert rig.inside("cat /etc/site.conf /etc/linked.conf; ls /opt/site /mnt2").stdout.split() == [
        "a=1", "a=1", "/mnt2:", "/opt/site:", "empty", "tools",
    ]  # fmt: skip
    for place in ("/opt/site/tools/x", "/etc/site.conf", "/opt/site/empty/x"):
        tried = rig.node.run(["/bin/sh", "-c", f"echo >> {place}"], root="/var/udi")
        assert "Read-only file system" in tried.stderr, place
    assert rig.tear_down().ok
    assert before.difference(rig.picture()) == []


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (PlanStep("after", "directory", "", "/scratch/x/y"), "it lies in site file system /scratch"),
        (PlanStep("after", "directory", "", "/etc/passwd"), "which is not a directory"),
        (PlanStep("after", "link", "x", "/scratch/link"), "it lies in site file system /scratch"),
        (PlanStep("after", "bind", "/nowhere", "/opt/x"), "site step bind /opt/x: No such file"),
        (
            PlanStep("after", "link", "x", "/etc/passwd"),
            "link /etc/passwd: shifter-xc's own /etc/passwd has the same",
        ),
    ],
)
def test_a_step_that_cannot_be_taken_is_named(rig: Rig, step: PlanStep, words: str) -> None:
    before = rig.picture()
    report = rig.set_up(rig.plan(steps=(step,)))
    assert (report.code, words in report.words) == (7, True), report.words
    assert before.difference(rig.picture()) == []


def test_a_step_stays_in_the_root_behind_a_link_of_the_image(rig: Rig) -> None:
    """/var/run of the image leads to /run: that of the root, and not that of the node."""
    assert rig.set_up(rig.plan(steps=(PlanStep("after", "directory", "", "/var/run/made"),))).ok
    assert rig.inside("ls -d /var/run/made /run/made").stdout == "/run/made\n/var/run/made\n"
    assert rig.tear_down().ok
    assert not faults.node_file(rig, "/run/made").exists()
    assert not faults.node_file(rig, "/var/run/made").exists()


def test_a_link_where_the_root_belongs_is_refused(rig: Rig) -> None:
    assert rig.node.run(["/bin/sh", "-c", "mkdir /elsewhere && ln -s /elsewhere /var/udi"]).returncode == 0
    before = rig.picture()
    report = rig.set_up(rig.plan())
    assert (report.code, report.words) == (7, "/var/udi is not a directory")
    assert before.difference(rig.picture()) == []
    assert rig.node.run(["/bin/sh", "-c", "rm /var/udi && rmdir /elsewhere"]).returncode == 0


def test_a_volume_gives_no_power_either(rig: Rig) -> None:
    """A set-uid program that the user finds in a volume, where it may lie on a file system that honours it."""
    tool = rig.directory / "scratch/alice/busybox-tool"
    shutil.copy("/bin/busybox", tool)
    subprocess.run(["chmod", "4755", tool], check=True)
    assert rig.set_up(rig.plan(volumes=(PlanMount("/scratch/alice", "/output", False),))).ok
    assert (
        rig.inside("/output/busybox-tool id -u; /scratch/alice/busybox-tool id -u").stdout.split()
        == [str(ALICE.uid)] * 2
    )
    assert rig.tear_down().ok
    tool.unlink()
