"""A per-node cache: the user's to fill, a file system of its own, and gone with the job."""

from __future__ import annotations

import base64
import os
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.node import faults
from tests.node.faults import Fault
from tests.node.rig import ALICE, BOB, Rig
from udi.cachefs import cache_template
from udiroot.plan import NodePlan, PlanCache, PlanMount

SIZE = 32 << 20
_TRIES = 5


@pytest.fixture
def clean(rig: Rig) -> Iterator[Rig]:
    before = rig.picture()
    yield rig
    rig.tear_down()
    assert before.difference(rig.picture()) == []
    assert [name for name in os.listdir(rig.directory / "scratch/alice") if name.startswith(".udi")] == []


def _cache(rig: Rig, source: str = "/scratch/alice", size: int = SIZE) -> dict[str, Any]:
    return {"caches": (PlanCache(source, "/cache", size, cache_template(rig.site, size, ALICE.uid, ALICE.gid)),)}


@pytest.mark.parametrize("kernel", faults.KERNELS)
def test_it_is_the_user_s_and_bounded_and_gone_with_the_job(clean: Rig, kernel: str) -> None:
    done = faults.set_up(clean, clean.plan(**_cache(clean)), Fault(kernel=kernel))
    assert done.report, done.trace
    assert done.report.ok, done.report.words
    assert clean.inside("echo kept > /cache/file && mkdir /cache/sub && cat /cache/file").stdout == "kept\n"
    assert "No space left" in clean.inside("cat /dev/zero > /cache/fill").stderr
    (mount,) = (line for line in clean.inside("cat /proc/self/mountinfo").stdout.splitlines() if " /cache " in line)
    assert {"rw", "nosuid", "nodev"} <= set(mount.split()[5].split(","))
    assert clean.tear_down().words == "clean"
    assert clean.set_up(clean.plan(**_cache(clean))).ok
    assert clean.inside("ls -A /cache").stdout in ("", "lost+found\n")


def test_its_file_has_no_name_and_is_sparse(clean: Rig) -> None:
    assert clean.set_up(clean.plan(**_cache(clean, size=10 << 30))).ok
    assert not any(name.startswith(".udi") for name in os.listdir(clean.directory / "scratch/alice"))
    bound = clean.picture().loops
    assert any("/scratch/alice/" in text and text.endswith("(deleted)") for text in bound), bound


def _left_bound(clean: Rig, plan: NodePlan, fault: Fault) -> str:
    """The device of the cache that a set-up has left which was killed there. Where somebody else on this host took the
    free device first, one more call came before: then it is killed once more."""
    for _ in range(_TRIES):
        assert faults.set_up(clean, plan, fault).killed
        devices = [text.split()[0] for text in clean.picture().loops if text.endswith("(deleted)")]
        if devices:
            (device,) = devices
            return device
        assert clean.tear_down().ok
    raise AssertionError(f"no set-up that was killed at call {fault} had bound a device")


@pytest.mark.parametrize("kernel", ["without LOOP_CONFIGURE", "old"])
def test_set_up_ends_before_its_device_has_a_name(clean: Rig, kernel: str) -> None:
    """As of an image's: the device would never be freed by itself, and keep the user's file and quota."""
    plan = clean.plan(**_cache(clean))
    calls = faults.set_up(clean, plan, Fault(kernel=kernel)).calls
    assert clean.tear_down().ok
    *_, bind, _ = (point for point, call in enumerate(calls, 1) if call == "ioctl")
    late = faults.set_up(clean, plan, Fault(bind, "late", kernel=kernel)).report
    assert late
    assert (late.code, clean.picture().loops) == (9, ()), late.words
    for fault in (Fault(bind, "after", kernel=kernel), Fault(bind + 1, "before", kernel=kernel)):
        device = _left_bound(clean, plan, fault)
        code, line = clean.check()
        assert (code, "2 loop devices (" in line, f"/dev/{device}" in line) == (1, True, True), line
        report = clean.tear_down()
        assert (report.ok, clean.picture().loops) == (True, ()), report.words


def test_where_the_file_system_cannot_make_one_without_a_name(clean: Rig) -> None:
    """As on Lustre: it has a name for a moment, mode 0, and nobody else on the node has it open."""
    plan = clean.plan(**_cache(clean))
    done = faults.set_up(clean, plan, Fault(kernel="without O_TMPFILE"))
    assert done.report, done.trace
    assert done.report.ok, done.report.words
    assert clean.inside("echo x > /cache/x; cat /cache/x").stdout == "x\n"


def test_where_nothing_shows_that_nobody_else_has_it_open(clean: Rig) -> None:
    """A user who waits for the name could open the file, keep it, and write what the kernel's parser then reads."""
    refused = faults.set_up(clean, clean.plan(**_cache(clean)), Fault(kernel="without leases")).report
    assert refused
    assert (refused.code, "other programs could write the cache" in refused.words) == (2, True), refused.words


def test_a_directory_that_the_user_may_not_write(clean: Rig) -> None:
    refused = clean.set_up(clean.plan(user=BOB, **_cache(clean)))
    assert (refused.code, "no file can be created there: Permission denied" in refused.words) == (2, True), (
        refused.words
    )


def test_a_file_is_no_place_for_one(clean: Rig) -> None:
    (clean.directory / "scratch/alice/file").write_text("x")
    refused = clean.set_up(clean.plan(**_cache(clean, "/scratch/alice/file")))
    (clean.directory / "scratch/alice/file").unlink()
    assert (refused.code, "not a directory" in refused.words) == (2, True), refused.words


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("0 eJwDAAAAAAE=", "cannot be mounted"),
        ("x", "invalid template"),
        ("0 ?", "invalid template"),
        ("0 eJwD", "invalid template"),
    ],
)
def test_a_template_that_is_no_file_system_is_the_site_s_fault(clean: Rig, template: str, words: str) -> None:
    refused = clean.set_up(clean.plan(caches=(PlanCache("/scratch/alice", "/cache", SIZE, template),)))
    assert (refused.code, words in refused.words) == (7, True), refused.words


def test_what_is_not_written_yet_is_not_waited_for(clean: Rig) -> None:
    """Nobody reads a cache after its job: the kernel forgets it just before it is unmounted."""
    assert clean.set_up(clean.plan(**_cache(clean))).ok
    assert clean.inside("cat /dev/zero | head -c 9000000 > /cache/x; mkdir /cache/y").stderr == ""
    outcome = faults.tear_down(clean, "123.sdb")
    assert outcome.report
    assert outcome.report.words == "clean"
    last = len(outcome.calls) - outcome.calls[::-1].index("umount")
    assert outcome.calls[:last].count("ioctl") == 1, outcome.calls


def test_a_file_system_of_the_node_is_not_taken_for_a_cache(clean: Rig) -> None:
    """One of the same kind, writable, and on a loop device too, stays usable when a job that had it has ended."""
    path = clean.directory / "scratch/own.ext4"
    with path.open("wb") as stream:
        stream.truncate(SIZE)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", path], check=True)
    mount = "mkdir /own && mount -t ext4 -o loop /scratch/own.ext4 /own"
    assert clean.node.run(["/bin/busybox", "sh", "-c", mount]).stderr == ""
    try:
        sites = (PlanMount("/own", "/own", False),)
        assert clean.set_up(clean.plan(sites=sites, **_cache(clean))).ok
        assert clean.inside("ls -d /own/lost+found").stdout == "/own/lost+found\n"
        assert clean.tear_down().words == "clean"
        assert clean.node.run(["/bin/busybox", "sh", "-c", "echo x > /own/x && sync && cat /own/x"]).stdout == "x\n"
    finally:
        assert clean.node.run(["/bin/busybox", "sh", "-c", "umount /own && rmdir /own"]).stderr == ""
        path.unlink()


@pytest.mark.parametrize("size", [SIZE, SIZE + 1, SIZE + 4095, 10 << 30, 1 << 40])
def test_its_file_system_is_one_for_old_kernels_and_small_to_send(clean: Rig, tmp_path: Path, size: int) -> None:
    template = cache_template(clean.site, size, ALICE.uid, ALICE.gid)
    assert len(template) < 1 << 20
    image = tmp_path / "image"
    with image.open("wb") as stream:
        stream.truncate(size)
        for line in template.split("\n"):
            offset, data = line.split(" ")
            stream.seek(int(offset))
            stream.write(zlib.decompress(base64.b64decode(data)))
    shown = subprocess.run(["dumpe2fs", "-h", image], capture_output=True, text=True, check=True).stdout
    (features,) = (line.split(":")[1].split() for line in shown.splitlines() if line.startswith("Filesystem features"))
    assert not {"metadata_csum", "sparse_super2", "has_journal", "orphan_file", "bigalloc"} & set(features)
    if size < 1 << 35:
        subprocess.run(["e2fsck", "-fn", image], check=True, capture_output=True)
