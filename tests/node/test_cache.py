"""A per-node cache: the user's to fill, a file system of its own, and gone with the job."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.node import faults
from tests.node.faults import Fault
from tests.node.rig import ALICE, BOB, Rig
from udi.cachefs import cache_template
from udiroot.plan import PlanCache

SIZE = 32 << 20


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
    backing = [
        Path(f"/sys/block/{name}/loop/backing_file").read_text()
        for name in os.listdir("/sys/block")
        if Path(f"/sys/block/{name}/loop/backing_file").exists()
    ]
    assert any("/scratch/alice/" in text and "(deleted)" in text for text in backing), backing


@pytest.mark.parametrize("without", ["O_TMPFILE", "leases"])
def test_where_the_file_system_cannot_make_one_without_a_name(clean: Rig, without: str) -> None:
    """As on Lustre: it has a name for a moment, and mode 0."""
    plan = clean.plan(**_cache(clean))
    done = faults.set_up(clean, plan, Fault(kernel=f"without {without}"))
    assert done.report, done.trace
    assert done.report.ok, done.report.words
    assert clean.inside("echo x > /cache/x; cat /cache/x").stdout == "x\n"


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
