"""Site modules on a node: what is mounted, what programs find in their environment, and what a node lacks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.node.rig import ALICE, Rig
from tests.node.test_udi_run import UDI_RUN
from udiroot.plan import NodePlan, PlanFile, PlanMount
from udiroot.plan_modules import PlanModule
from udiroot.sitemodules import PLACE, RUN

_RUN = "udi-run 1\0workdir /\0set PATH=/bin\0set LIST=image\0set GONE=1" + PLACE + "set HOME=/home/alice\0end\0"
MPICH = PlanModule(
    "mpich",
    False,
    (
        ("present", "/scratch/site/mpich", ""),
        ("ro", "/scratch/site/mpich", "/opt/udi-site/mpich"),
        ("rw", "/scratch/site/spool", "/var/spool/deep/er"),
        ("ro", "/scratch/site/mpich/lib", "/lib/one.so"),
        ("link", "lib", "/usr/lib/link"),
        ("prepend", "LIST=/first:/second", ""),
        ("append", "LIST=/last", ""),
        ("set", "SPACES=a  b\n$c", ""),
        ("unset", "GONE", ""),
    ),
)


@pytest.fixture
def clean(rig: Rig) -> Iterator[Rig]:
    """A node that is as before afterwards, with something of the site to mount."""
    site = rig.directory / "scratch/site"
    (site / "mpich").mkdir(parents=True, exist_ok=True)
    (site / "spool").mkdir(exist_ok=True)
    (site / "mpich/lib").write_text("the library\n")
    os.chown(site / "spool", ALICE.uid, ALICE.gid)
    before = rig.picture()
    yield rig
    rig.tear_down()
    assert before.difference(rig.picture()) == []


def plan(rig: Rig, *modules: PlanModule, **changes: Any) -> NodePlan:
    return rig.plan(files=(PlanFile(RUN, 0o444, _RUN),), site_modules=modules, **changes)


def variables(rig: Rig) -> dict[str, str]:
    done = rig.node.run(
        [UDI_RUN, "--clear-env", "/bin/busybox", "env", "-0"], uid=ALICE.uid, gid=ALICE.gid, root=rig.site.node.root
    )
    assert done.returncode == 0, done.stderr
    pairs = (text.partition("=") for text in done.stdout.split("\0") if text)
    return {name: value for name, _, value in pairs}


def test_mounts_links_and_environment(clean: Rig) -> None:
    report = clean.set_up(plan(clean, MPICH))
    assert report.ok, report.words
    script = (
        "cat /opt/udi-site/mpich/lib /lib/one.so /usr/lib/link 2>&1; touch /opt/udi-site/mpich/x /var/spool/deep/er/x"
    )
    done = clean.inside(script)
    assert done.stdout.splitlines()[:2] == ["the library"] * 2
    assert done.stderr.splitlines() == ["touch: /opt/udi-site/mpich/x: Read-only file system"]
    assert clean.inside("ls -l /usr/lib/link").stdout.strip().endswith("/usr/lib/link -> lib")
    found = variables(clean)
    assert {name: found.get(name) for name in ("LIST", "SPACES", "GONE", "HOME", "UDI_MODULES_USED")} == {
        "LIST": "/first:/second:image:/last",
        "SPACES": "a  b\n$c",
        "GONE": None,
        "HOME": "/home/alice",
        "UDI_MODULES_USED": "mpich",
    }


def test_a_module_by_default_is_passed_over_whole_where_the_node_lacks_what_it_needs(clean: Rig) -> None:
    lacking = PlanModule("gpu", False, (*MPICH.parts, ("device", "/dev/no-such-device", "")))
    other = PlanModule("other", True, (("set", "OTHER=1", ""), ("device", "/dev/null", "")))
    assert clean.set_up(plan(clean, lacking, other)).ok
    assert clean.inside("ls /opt/udi-site /var/spool/deep /usr/lib/link").stdout == ""
    found = variables(clean)
    assert (found["LIST"], found["GONE"], found["UDI_MODULES_USED"], found["OTHER"]) == ("image", "1", "other", "1")


@pytest.mark.parametrize(
    "need", [("present", "/scratch/none", ""), ("device", "/dev/none", ""), ("device", "/scratch", "")]
)
def test_one_that_was_asked_for_is_refused_there(clean: Rig, need: tuple[str, str, str]) -> None:
    report = clean.set_up(plan(clean, PlanModule("gpu", True, (*MPICH.parts, need))))
    words = f"module gpu is not for this node, which has no {need[1]}; request nodes that have it, or leave"
    assert (report.code, report.words) == (3, f"{words} the module out")
    assert not clean.node.run(["/bin/sh", "-c", "ls -d /var/udi"]).stdout


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (("ro", "/scratch/none", "/x"), "mount of module mpich /scratch/none: No such file or directory"),
        (("ro", "/dev/null", "/x"), "mount of module mpich /dev/null: neither a directory nor a file"),
        (("ro", "/scratch", "/etc"), "mount of module mpich /scratch: /etc would hide what belongs to shifter-xc"),
    ],
)
def test_a_fault_of_the_site_is_the_sites(clean: Rig, part: tuple[str, str, str], words: str) -> None:
    report = clean.set_up(plan(clean, PlanModule("mpich", True, (part,))))
    assert (report.code, report.words) == (7, words)


def test_a_volume_may_lie_in_a_module_and_not_hide_it(clean: Rig) -> None:
    (clean.directory / "scratch/alice/data").mkdir(exist_ok=True)
    (clean.directory / "scratch/site/spool/in").mkdir(exist_ok=True)
    inside = (PlanMount("/scratch/alice/data", "/var/spool/deep/er/in", False),)
    assert clean.set_up(plan(clean, MPICH, volumes=inside)).ok
    clean.tear_down()
    report = clean.set_up(plan(clean, MPICH, volumes=(PlanMount("/scratch/alice/data", "/var/spool/deep", False),)))
    assert (report.code, "no volume may be mounted on /var/spool/deep" in report.words) == (4, True)
