"""A root takes very many mounts, entries and links, and very long paths; its cost grows with their number only."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.node import faults
from tests.node.anywhere import WAYS, image_of, set_up, sites_of, view_of
from tests.node.faults import Fault
from tests.node.rig import Rig


def test_a_directory_with_very_many_entries(furnished: Rig) -> None:
    """An overlay takes it as it is; binds have a limit, which is the image's to keep."""

    def change(tree: Path) -> None:
        for number in range(9000):
            (tree / f"etc/{number}").touch()

    image = image_of(furnished, "a7" * 32, change)
    set_up(furnished, furnished.plan(**image), "new")
    assert furnished.inside("ls /etc | grep -c .").stdout == "9006\n"
    assert furnished.tear_down().ok
    refused = faults.set_up(furnished, furnished.plan(**image), Fault(kernel="without overlay")).report
    assert refused
    assert (refused.code, "/etc of the image has too many entries" in refused.words) == (5, True), refused.words


def test_a_crowded_top_level(furnished: Rig) -> None:
    def change(tree: Path) -> None:
        for number in range(3000):
            (tree / f"f{number}").write_text(str(number))
        (tree / "lib64").symlink_to("usr/lib")

    image = image_of(furnished, "a8" * 32, change)
    views = []
    for way in WAYS:
        sites = sites_of(
            ("/scratch/spool", "/var/spool/alps"), ("/scratch/site", "/opt/udi2/x"), ("/scratch", "/scratch")
        )
        set_up(furnished, furnished.plan(**image, **sites), way)
        assert (
            furnished.inside("cat /f2999 /var/spool/alps/placement /opt/udi2/x/mark").stdout
            == "2999spool/placement\nsite/mark\n"
        )
        assert "Read-only" in furnished.inside("echo > /x").stderr
        views.append(view_of(furnished))
        assert furnished.tear_down().words == "clean"
    assert views[0] == views[1]


@pytest.mark.parametrize("way", WAYS)
def test_hundreds_of_places(furnished: Rig, way: str) -> None:
    targets = [f"/site/{number % 7}/{number}/deep" for number in range(300)]
    set_up(furnished, furnished.plan(**sites_of(*(("/scratch/spool", target) for target in targets))), way)
    assert furnished.inside("cat /site/*/*/deep/placement | grep -c .").stdout == "300\n"


def _links(tree: Path) -> None:
    for number in range(400):
        (tree / f"l{number}").symlink_to(("etc", "/opt/udi", "scratch", "usr")[number % 4])


@pytest.mark.parametrize("way", [*WAYS, "old"])
def test_the_calls_for_hundreds_of_places_grow_with_their_number_only(furnished: Rig, way: str) -> None:
    """Whatever links the image has where they belong: each open(2), and each call that changes the node."""
    image = image_of(furnished, "a9" * 32, _links)
    needed = []
    counting = Fault(mode="late", kernel=way)
    for count in (50, 400):
        sites = sites_of(*(("/scratch/spool", f"/l{number}/deep") for number in range(count)))
        outcome = faults.set_up(furnished, furnished.plan(**image, **sites), counting)
        assert outcome.report and outcome.report.ok, outcome.report
        needed.append(len(outcome.calls))
        shown = furnished.inside(
            f"n=0; while [ $n -lt {count} ]; do cat /l$n/deep/placement; n=$((n+1)); done | grep -c ."
        )
        assert shown.stdout == f"{count}\n"
        assert furnished.tear_down().words == "clean"
    assert needed[1] <= 8 * needed[0], needed


def test_a_link_to_a_directory_deeper_than_a_path_may_be(furnished: Rig) -> None:
    def change(tree: Path) -> None:
        deep = tree / "/".join(["deep" * 50] * 8)
        deep.mkdir(parents=True)
        (tree / "short").symlink_to(deep.relative_to(tree))

    plan = furnished.plan(**image_of(furnished, "aa" * 32, change), **sites_of(("/scratch/spool", "/short/x")))
    for way in WAYS:
        set_up(furnished, plan, way)
        assert furnished.inside("cat /short/x/placement").stdout == "spool/placement\n"
        assert furnished.tear_down().words == "clean"
