"""Teardown in hard cases: an image whose file system is gone, a process that holds it only by a mapping, and what only
a person can fix."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.node.rig import ALICE, IDENTITY_FILE, STORE_UID, Rig
from tests.node.test_leftovers import tear_down
from tests.node.test_teardown import running
from udiroot.plan import PlanUser

_ROOT = PlanUser("root", 0, 0, (0,), "/root", "/bin/sh")
_HOLD_A_MAPPING = """
import ctypes, os, time
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
descriptor = os.open("/var/udi/bin/busybox", os.O_RDONLY)
assert libc.mmap(None, ctypes.c_size_t(4096), 1, 2, descriptor, ctypes.c_long(0)) not in (None, 2**64 - 1)
os.close(descriptor)
with open("/proc/self/comm", "w") as name:
    name.write("sleep")
time.sleep(1000)
"""


def test_a_mapping_of_the_image_is_the_only_holder(rig: Rig) -> None:
    before = rig.picture()
    assert rig.set_up(rig.plan()).ok
    with running(rig, [*rig.site.node.python, "-I", "-S", "-c", _HOLD_A_MAPPING], root="/") as process:
        report = tear_down(rig, shared=True)
        assert report.ok, report.words
        assert f"uid {ALICE.uid}; mapped file in image)" in report.words
        process.wait(timeout=30)
    assert before.difference(rig.picture()) == []


def test_the_file_system_of_the_image_is_gone_while_mounted(rig: Rig) -> None:
    """Its server dies, as a parallel file system's may: every read of the image fails, and teardown is as ever."""
    assert rig.node.run(["/bin/mkdir", "/lost"]).returncode == 0
    before = rig.picture()
    images = rig.directory / "remote"
    images.mkdir()
    copy = images / "image.squashfs"
    copy.write_bytes(rig.image.read_bytes())
    copy.chmod(0o444)
    os.chown(copy, STORE_UID, STORE_UID)
    server = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "benchmarks.slowfs",
            images,
            "/lost",
            "--latency",
            "0",
            "--namespace",
            str(rig.node.pid),
        ],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert server.stdout
    assert server.stdout.readline() == "ready\n"
    done = rig.set_up(rig.plan(image_path="/lost/image.squashfs"))
    assert done.ok, done.words
    server.kill()
    server.wait()
    assert rig.node.run(["/bin/cat", "/lost/image.squashfs"]).returncode != 0
    with running(rig, ["/bin/sh", "-c", "cat /var/udi/bin/busybox; exec sleep 1000 < /var/udi/tmp"], root="/"):
        report = rig.tear_down()
        assert report.ok, report.words
        assert rig.check() == (0, "udi: clean")
    assert rig.node.run(["/bin/umount", "/lost"]).returncode == 0
    assert before.difference(rig.picture()) == []


def test_what_cannot_be_undone_is_reported_by_the_check_in_the_same_words(rig: Rig) -> None:
    """A process of root holds the job's root: teardown must not terminate it."""
    before = rig.picture()
    assert rig.set_up(rig.plan()).ok
    with running(rig, ["/bin/sleep", "1000"], user=_ROOT, root="/", cwd="/var/udi/tmp") as process:
        report = rig.tear_down()
        assert report.code == 8
        assert "(sleep, uid 0; working directory in image)" in report.words
        code, line = rig.check()
        assert code == 1
        assert report.words.startswith(line.removeprefix("udi: "))
        assert "\n" not in line.strip()
        assert process.poll() is None
    assert rig.tear_down().ok
    assert before.difference(rig.picture()) == []


def test_run_and_root_behind_a_link(rig: Rig) -> None:
    """/var/run is a link to /run on many systems; the kernel's table knows only real directories."""
    before = rig.picture()
    assert rig.node.run(["/bin/sh", "-c", "mkdir /real && ln -s /real /link"]).returncode == 0
    plan = rig.plan(run="/link/udi")
    assert rig.set_up(plan).ok
    words = [*rig.site.node.python, "-I", "-S", "-c"]
    start = (
        f"import sys; sys.path.insert(0, {rig.site.node.zip!r}); import bundle; bundle.install({rig.site.node.zip!r})"
    )
    check = [*words, f"{start}; from nodehealth.check import main; main()", "--run", "/link/udi"]
    assert rig.node.run([*check, "--nid-file", IDENTITY_FILE]).returncode == 1
    down = [*words, f"{start}; from udiroot.commands import main; main()", "unsetupRoot", "--run", "/link/udi"]
    done = rig.node.run([*down, "--nid-file", IDENTITY_FILE, "--job", plan.job, "ab" * 16])
    assert done.returncode == 0, done.stdout + done.stderr
    assert rig.node.run(["/bin/sh", "-c", "rmdir /real && rm /link"]).returncode == 0
    assert before.difference(rig.picture()) == []
