"""What a job's user sees in the root, and what is powerless there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.node.rig import ALICE, Rig
from udiroot.plan import PlanFile, PlanMount


@pytest.fixture
def ready(rig: Rig) -> Iterator[Rig]:
    """A node with alice's root set up, and clean again afterwards."""
    before = rig.picture()
    done = rig.set_up(rig.plan())
    assert done.ok, done.words
    yield rig
    assert rig.tear_down().ok
    assert before.difference(rig.picture()) == []


def test_image_and_our_files(ready: Rig) -> None:
    assert ready.inside("cat /etc/os-release /etc/app/conf; ls -d /lib /data").stdout == "NAME=tiny\nx=1\n/data\n/lib\n"
    assert ready.inside("ls -l /lib | sed 's/.* //'").stdout == "usr/lib\n"
    assert ready.inside("cat /var/nodelist").stdout == "nid00012\nnid00012\nnid00013\nnid00013\nnid100020\n"
    assert ready.inside("/opt/udi/bin/udi-run cat /etc/os-release").stdout == "NAME=tiny\n"
    assert ready.inside("/entry; ls /opt").stdout == "entered\napp\nudi\n"


def test_dangling_resolv_conf_of_the_image_is_replaced_not_followed(ready: Rig) -> None:
    assert ready.inside("cat /etc/resolv.conf").stdout == "nameserver 192.0.2.1\n"


def test_accounts_are_the_job_s_and_the_image_s_system_ones(ready: Rig) -> None:
    lines = ready.inside("cat /etc/passwd").stdout.splitlines()
    assert lines == ["root:x:0:0::/root:/bin/sh", "alice:x:1001:1001::/home:/bin/sh", "daemon:x:1:1::/:/bin/false"]
    assert ready.inside("id -un").stdout == "alice\n"


def test_every_mount_is_nosuid_and_nodev_but_for_dev(ready: Rig) -> None:
    lines = ready.inside("cat /proc/self/mountinfo").stdout.splitlines()
    assert len(lines) > 15
    for line in lines:
        point, options = line.split()[4], line.split()[5].split(",")
        assert "nosuid" in options, line
        if point != "/dev" and not point.startswith("/dev/"):
            assert "nodev" in options, line


def test_writing_fails_in_the_image_and_the_root_but_not_in_tmp(ready: Rig) -> None:
    for place in (
        "/bin/x",
        "/etc/x",
        "/etc/app/x",
        "/x",
        "/opt/udi/x",
        "/opt/udi/bin/udi-run",
        "/var/x",
        "/projects/x",
    ):
        tried = ready.node.run(["/bin/sh", "-c", f"echo >> {place}"], root="/var/udi")
        assert "Read-only file system" in tried.stderr, place
    assert ready.inside("echo 1 > /tmp/x && echo 2 > /var/tmp/x && cat /tmp/x /var/tmp/x").stdout == "1\n2\n"


def test_volume_and_site_file_systems(ready: Rig) -> None:
    assert ready.inside("echo hello > /output/result").returncode == 0
    result = ready.directory / "scratch/alice/result"
    assert result.read_text() == "hello\n"
    assert result.stat().st_uid == ALICE.uid
    assert ready.inside("cat /scratch/alice/result").stdout == "hello\n"
    result.unlink()


def test_set_uid_programs_are_powerless(rig: Rig) -> None:
    """A copy of busybox that is set-uid root in the image still runs as the user."""
    tree = rig.directory / "suid-tree"
    if not tree.exists():
        from tests.node.rig import make_tree

        make_tree(tree)
        (tree / "bin/busybox-suid").write_bytes((tree / "bin/busybox").read_bytes())
        (tree / "bin/busybox-suid").chmod(0o4755)
        (tree / "bin/id").unlink()
        rig.make_image("squashfs", "cd" * 32, tree)
    assert rig.set_up(rig.plan(image_path=f"/lus/udi/images/{'cd' * 32}.squashfs")).ok
    assert rig.inside("/bin/busybox-suid id -u").stdout == f"{ALICE.uid}\n"
    assert rig.tear_down().ok


def test_volume_through_a_link_of_the_image_lands_inside_the_root(rig: Rig) -> None:
    """/lib -> usr/lib: the target is in the root, and the node's own /usr/lib is not touched."""
    plan = rig.plan(volumes=(PlanMount("/scratch/alice", "/lib/mine", False),))
    before = rig.picture()
    assert rig.set_up(plan).ok
    assert rig.inside("ls -d /usr/lib/mine /lib/mine").stdout == "/lib/mine\n/usr/lib/mine\n"
    assert rig.tear_down().ok
    assert before.difference(rig.picture()) == []


def test_shared_memory_is_the_job_s_own_and_goes_with_it(rig: Rig) -> None:
    rig.node.run(["/bin/sh", "-c", "echo node > /dev/shm/node"], check=True)
    assert rig.set_up(rig.plan()).ok
    assert rig.inside("ls /dev/shm; echo job > /dev/shm/job; cat /dev/shm/job").stdout == "job\n"
    assert rig.node.run(["/bin/sh", "-c", "ls /dev/shm"]).stdout == "node\n"
    assert rig.tear_down().ok
    assert rig.node.run(["/bin/sh", "-c", "ls /dev/shm; rm /dev/shm/node"]).stdout == "node\n"


def test_the_node_s_hidepid_is_kept(rig: Rig) -> None:
    """Another user's processes are as invisible in the root as they are on the node."""
    rig.node.run(["/bin/mount", "-o", "remount,hidepid=2", "/proc"], check=True)
    try:
        assert rig.set_up(rig.plan()).ok
        assert rig.inside("ls -d /proc/1; ls -d /proc/self").stdout == "/proc/self\n"
        assert rig.tear_down().ok
    finally:
        rig.node.run(["/bin/mount", "-o", "remount,hidepid=0", "/proc"], check=True)


@pytest.mark.parametrize(
    "text", ["", "127.0.0.1 localhost", "127.0.0.1 localhost\n# {name}\n", "192.0.2.7 x{name} {name}x\n"]
)
def test_a_node_finds_its_own_name(rig: Rig, text: str) -> None:
    name = rig.node.run(["/bin/hostname"]).stdout.strip()
    etc = (PlanFile("hosts", 0o644, text.format(name=name)),) if text else ()
    assert rig.set_up(rig.plan(etc=etc)).ok
    lines = rig.inside("cat /etc/hosts").stdout.splitlines()
    assert rig.tear_down().ok
    (own,) = (line for line in lines if name in line.partition("#")[0].split()[1:])
    assert own.split()[0] == "127.0.1.1"


@pytest.mark.parametrize(
    "start", ["localhost", "10.0.0", "10.0.0.256", "10.0.0.01", "::g", "10.0.0.1\u00a0x", "10.0.0.1\x1c"]
)
def test_a_line_that_programs_pass_over_does_not_count(rig: Rig, start: str) -> None:
    name = rig.node.run(["/bin/hostname"]).stdout.strip()
    text = f"{start}{'' if start.endswith(chr(0x1C)) else ' '}{name}\n"
    assert rig.set_up(rig.plan(etc=(PlanFile("hosts", 0o644, text),))).ok
    shown = rig.inside("cat /etc/hosts").stdout
    assert rig.tear_down().ok
    assert shown == f"{text}127.0.1.1 {name}\n"


def test_a_node_that_the_plan_knows_is_not_named_twice(rig: Rig) -> None:
    name = rig.node.run(["/bin/hostname"]).stdout.strip()
    text = f"10.128.0.5 {name}\n"
    assert rig.set_up(rig.plan(etc=(PlanFile("hosts", 0o644, text),))).ok
    assert rig.inside("cat /etc/hosts").stdout == text
    assert rig.tear_down().ok
