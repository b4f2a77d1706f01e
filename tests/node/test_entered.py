"""Whether a program of the image ever ran, by the kernel's own count of what was read from the image."""

from __future__ import annotations

import pytest

from tests.node.rig import Rig
from udiroot.report import UNREAD


@pytest.fixture(params=["squashfs", "ext4"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def set_up(rig: Rig, kind: str) -> None:
    path = rig.directory / f"store/images/{'ab' * 32}.{kind}"
    if not path.exists():
        rig.make_image(kind)
    done = rig.set_up(rig.plan(image_format=kind, image_path=f"/lus/udi/images/{path.name}"))
    assert done.ok, done.words


def test_a_root_that_nobody_entered(rig: Rig, kind: str) -> None:
    set_up(rig, kind)
    down = rig.tear_down()
    assert (down.words, down.left) == ("clean", (UNREAD,))


def test_a_root_in_which_a_program_ran(rig: Rig, kind: str) -> None:
    """Also for the second job of the same image, whose file is in the node's cache by then."""
    for _ in range(2):
        set_up(rig, kind)
        assert rig.inside("echo ran").stdout == "ran\n"
        down = rig.tear_down()
        assert (down.words, down.left) == ("clean", ())


def test_what_is_no_entering(rig: Rig, kind: str) -> None:
    """The health check of the node, and another teardown's look at it."""
    set_up(rig, kind)
    assert rig.check()[0] == 1
    assert rig.tear_down("999.sdb").left == ()
    assert rig.tear_down().left == (UNREAD,)
    assert rig.tear_down().left == ()


def test_a_tree_on_a_loop_device_that_is_not_its_own(rig: Rig) -> None:
    """Others read of that file system too, and what is in the node's cache is read without being counted."""
    rig.make_image("ext4", "cd" * 32).rename(rig.directory / "store/own.ext4")
    tree = f"/lus/udi/images/{'cd' * 32}.directory"
    mounted = f"mkdir {tree} && mount -t ext4 -o loop,ro /lus/udi/own.ext4 {tree}"
    done = rig.node.run(["/bin/sh", "-c", mounted])
    assert done.returncode == 0, done.stderr
    try:
        for _ in range(2):  # the second time, all is in the cache
            report = rig.set_up(rig.plan(image_format="directory", image_path=tree, store_uid=0, store_gid=0))
            assert report.ok, report.words
            assert rig.inside("echo ran").stdout == "ran\n"
            down = rig.tear_down()
            assert (down.words, down.left) == ("clean", ())
    finally:
        done = rig.node.run(["/bin/sh", "-c", f"umount {tree} && rmdir {tree} && rm /lus/udi/own.ext4"])
        assert done.returncode == 0, done.stderr
