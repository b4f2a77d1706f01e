"""Teardown in hard cases: holders of every kind, other jobs, lost records, and what cannot be repaired."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.node.rig import ALICE, BOB, NID, Rig
from tests.node.test_leftovers import tear_down
from udiroot.plan import PlanUser
from xcsim.entering import Entry
from xcsim.node import kill_program
from xcsim.processes import wait_until


@contextmanager
def running(
    rig: Rig, argv: list[str], user: PlanUser = ALICE, root: str = "/var/udi", cwd: str = "/"
) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs while the body does, from when it has become a `sleep`, or started one."""
    entry = Entry(uid=user.uid, gid=user.gid, groups=user.groups, root=root, cwd=cwd)
    others = set(rig.node.processes())
    process = rig.node.popen(argv, entry=entry, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert wait_until(lambda: any(map(_sleeps, set(rig.node.processes()) - others)), 30)
        yield process
    finally:
        kill_program(process)
        process.wait()


def _sleeps(pid: int) -> bool:
    """Whether the process is a `sleep`, by its first word, or by the name that it has given itself."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return words[0].rpartition(b"/")[2] == b"sleep" or Path(f"/proc/{pid}/comm").read_bytes() == b"sleep\n"
    return False


HOLDERS = {
    "root": ("sleep 1000", "/var/udi", "/"),
    "working directory": ("exec sleep 1000", "/", "/var/udi/output"),
    "open file": ("exec sleep 1000 < /var/udi/etc/os-release", "/", "/"),
    "deaf": ("trap '' TERM; while :; do sleep 1; done", "/var/udi", "/"),
    "file in tmp": ("exec sleep 1000 > /var/udi/tmp/x", "/", "/"),
}


@pytest.mark.parametrize("kind", HOLDERS)
@pytest.mark.parametrize("shared", [False, True])
def test_the_user_s_holders_are_terminated_and_named(rig: Rig, kind: str, shared: bool) -> None:
    before = rig.picture()
    script, root, cwd = HOLDERS[kind]
    assert rig.set_up(rig.plan()).ok
    with running(rig, ["/bin/sh", "-c", script], root=root, cwd=cwd) as process:
        report = tear_down(rig, shared=shared)
        assert report.ok, report.words
        number = "2 processes" if kind == "deaf" else "1 process"
        assert f"terminated {number}: pid " in report.words or (shared and kind == "deaf")  # it may start a third one
        assert f"uid {ALICE.uid}" in report.words
        process.wait(timeout=30)
    assert before.difference(rig.picture()) == []


def test_a_mount_namespace_of_the_user_s_own(rig: Rig) -> None:
    """unshare in a user namespace keeps copies of all mounts, while no link of the process leads into the root."""
    before = rig.picture()
    assert rig.set_up(rig.plan()).ok
    triplet = rig.site.node.python[0].rpartition("/")[0]
    words = [*rig.site.node.python[:2], triplet, "/dsl/usr/bin/unshare", "--user", "--mount", "/bin/sleep", "1000"]
    with running(rig, words, root="/") as process:
        report = rig.tear_down()
        assert report.ok, report.words
        process.wait(timeout=30)
    assert before.difference(rig.picture()) == []


def test_another_user_s_holder_is_named_and_not_touched(rig: Rig) -> None:
    before = rig.picture()
    assert rig.set_up(rig.plan()).ok
    with running(rig, ["/bin/sh", "-c", "exec sleep 1000 < /var/udi/etc/os-release"], user=BOB, root="/") as process:
        report = rig.tear_down()
        assert report.code == 8
        assert f"uid {BOB.uid}" in report.words
        assert report.jobs == ("123.sdb",)
        assert "processes=1" in report.left
        assert process.poll() is None
        code, line = rig.check()
        assert code == 1
        assert "left by 123.sdb (set up 20" in line
    assert rig.tear_down().ok
    assert before.difference(rig.picture()) == []


def test_the_check_reports_jobs_and_numbers_as_fields(rig: Rig) -> None:
    assert rig.set_up(rig.plan()).ok
    found = rig.report()
    assert (found.node, found.code, found.jobs) == (str(NID), 8, ("123.sdb",))
    numbers = {kind: int(number) for kind, number in (each.split("=") for each in found.left)}
    assert list(numbers) == ["mounts", "loops", "files"]
    assert (numbers["mounts"] > 15, numbers["loops"], numbers["files"]) == (True, 1, 1)
    assert f"{numbers['mounts']} mounts (last on /var/udi" in found.words
    assert "; 1 loop device (/dev/loop" in found.words
    assert found.words.endswith("; record")
    assert rig.tear_down().ok
    clean = rig.report()
    assert (clean.ok, clean.jobs, clean.left, clean.words) == (True, (), (), "clean")


def test_another_job_s_root_is_left_alone(rig: Rig) -> None:
    assert rig.set_up(rig.plan("77.sdb")).ok
    held = rig.picture()
    report = rig.tear_down("7.sdb")
    assert report.ok
    assert "no root of 7.sdb on this node" in report.words
    assert held.difference(rig.picture()) == []
    refused = rig.set_up(rig.plan("7.sdb"))
    assert refused.code == 7
    assert "77.sdb" in refused.words
    assert held.difference(rig.picture()) == []
    assert rig.tear_down("77.sdb").ok


@pytest.mark.parametrize("record", ["lost", "truncated", "of another boot"])
def test_the_kernel_s_tables_do_when_the_record_is_lost(rig: Rig, record: str) -> None:
    before = rig.picture()
    assert rig.set_up(rig.plan()).ok
    path = "/var/run/udi/job"
    script = {
        "lost": f"rm {path}",
        "truncated": f"head -c 30 {path} > {path}.x && mv {path}.x {path}",
        "of another boot": f"sed -i 's/^boot .*/boot 00000000/' {path}",
    }[record]
    assert rig.node.run(["/bin/sh", "-c", script]).returncode == 0
    code, line = rig.check()
    assert (code, "123.sdb" in line) == (1, True)
    assert rig.tear_down("99.sdb").ok
    assert rig.check()[0] == 1
    assert rig.tear_down().ok
    assert before.difference(rig.picture()) == []


def test_a_mount_stacked_on_the_root_and_one_made_by_the_job(rig: Rig) -> None:
    before = rig.picture()
    assert rig.set_up(rig.plan()).ok
    for target in ("/var/udi/data", "/var/udi"):
        assert rig.node.run(["/bin/mount", "-t", "tmpfs", "later", target]).returncode == 0
    assert rig.tear_down().ok
    assert before.difference(rig.picture()) == []


def test_the_image_file_gone_while_mounted(rig: Rig) -> None:
    before = rig.picture()
    copy = rig.directory / "store/images/gone.squashfs"
    copy.write_bytes(rig.image.read_bytes())
    copy.chmod(0o444)
    import os

    os.chown(copy, 990, 990)
    assert rig.set_up(rig.plan(image_path="/lus/udi/images/gone.squashfs")).ok
    copy.chmod(0o644)
    with copy.open("r+b") as stream:
        stream.truncate(0)
    copy.unlink()
    assert rig.tear_down().ok
    assert before.difference(rig.picture()) == []


def test_a_directory_for_the_root_that_existed_before_stays(rig: Rig) -> None:
    rig.node.run(["/bin/mkdir", "/var/udi"])
    before = rig.picture()
    assert rig.set_up(rig.plan()).ok
    assert rig.tear_down().ok
    assert before.difference(rig.picture()) == []
    rig.node.run(["/bin/rmdir", "/var/udi"])


def test_teardown_of_a_clean_node_twice(rig: Rig) -> None:
    before = rig.picture()
    assert rig.tear_down().ok
    assert rig.tear_down().ok
    assert before.difference(rig.picture()) == []


def test_set_up_twice_for_one_job(rig: Rig) -> None:
    before = rig.picture()
    assert rig.set_up(rig.plan()).ok
    assert rig.set_up(rig.plan()).ok
    assert rig.inside("cat /etc/os-release").stdout == "NAME=tiny\n"
    assert rig.tear_down().ok
    assert before.difference(rig.picture()) == []


def test_another_program_s_loop_device_and_mount_are_not_our_dirt(rig: Rig) -> None:
    """Even one of the job's own image file, bound by another program."""
    done = subprocess.run(
        ["losetup", "--find", "--show", "--read-only", rig.image], capture_output=True, text=True, check=True
    )
    try:
        assert rig.check() == (0, "udi: clean")
    finally:
        subprocess.run(["losetup", "--detach", done.stdout.strip()], check=True)


@pytest.mark.parametrize(("row", "is_another"), [("pid", True), ("sshd", True), ("sshd", False)])
def test_a_process_that_has_by_now_the_number_in_the_record(rig: Rig, row: str, is_another: bool) -> None:
    """A number alone is nobody's: only with its start time in the record a process is the job's set-up or sshd."""
    before = rig.picture()
    assert rig.set_up(rig.plan()).ok
    with running(rig, ["/bin/sh", "-c", "echo $$ > /tmp/number; exec sleep 1000"], user=BOB, root="/") as process:
        script = f"""
read number < /tmp/number; start=$(cut -d ' ' -f 22 /proc/$number/stat); file=/var/run/udi/job
[ {int(is_another)} = 0 ] || start=$((start - 1))
[ {row} = sshd ] && sed -i "s/^end$/sshd $number\\/$start\\nend/" $file
[ {row} = pid ] && sed -i "s/^pid .*/pid $number/; s/^start .*/start $start/" $file
grep -c "^{row} $number" $file; rm /tmp/number
"""
        assert rig.node.run(["/bin/sh", "-c", script]).stdout == "1\n"
        report = rig.tear_down()
        assert report.ok, report.words
        if not is_another:
            process.wait(timeout=30)
        assert (process.poll() is None) is is_another
    assert before.difference(rig.picture()) == []
