"""The straight way: a root is set up, used as the user, taken down, and the node is as it was."""

from __future__ import annotations

import contextlib
import fcntl
import os

import pytest

from tests.node.rig import Rig
from udi import nodecommand


@pytest.mark.parametrize("kind", ["squashfs", "ext4", "directory"])
def test_node_is_as_before_after_each_format(rig: Rig, kind: str) -> None:
    path = rig.directory / f"store/images/{'ab' * 32}.{kind}"
    if not path.exists():
        rig.make_image(kind)
    before = rig.picture()
    done = rig.set_up(rig.plan(image_format=kind, image_path=f"/lus/udi/images/{path.name}"))
    assert done.ok, done.words
    assert rig.inside("cat /etc/os-release").stdout == "NAME=tiny\n"
    assert rig.check()[0] == 1
    assert rig.tear_down().ok
    assert before.difference(rig.picture()) == []
    assert rig.check() == (0, "udi: clean")


def test_a_node_that_is_known_by_its_host_name(rig: Rig) -> None:
    """A cluster's nodes have no number: without a file to read it from, the identity is the kernel's node name."""
    before = rig.picture()
    name = rig.node.run(["/bin/cat", "/proc/sys/kernel/hostname"]).stdout.strip()
    path, sha256 = rig.send(rig.plan())
    nonce = "ab" * 16
    done = rig.answer(nodecommand.setup_command(rig.site, "", path, sha256, nonce), nonce)
    assert (done.ok, done.node) == (True, name), done.words
    dirty = rig.answer(nodecommand.check_command(rig.site, "", nonce), nonce)
    assert (dirty.node, dirty.jobs) == (name, ("123.sdb",))
    assert "loops=1" in dirty.left
    down = rig.answer(nodecommand.teardown_command(rig.site, "", "123.sdb", nonce), nonce)
    assert (down.words, down.node) == ("clean", name)
    assert before.difference(rig.picture()) == []


def test_a_node_needs_neither_a_lock_nor_a_write_of_the_store(rig: Rig) -> None:
    """Each of thousands of nodes would wait for the one before it."""
    before = rig.picture()
    store = rig.directory / "store"
    remount = ["/bin/mount", "-o", "remount,bind,{}", "/lus/udi"]
    assert rig.node.run([word.format("ro") for word in remount]).returncode == 0
    with contextlib.ExitStack() as locked:
        for path in (store, store / "images", store / "plans", rig.image):
            descriptor = os.open(path, os.O_RDONLY)
            locked.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        assert "Read-only" in rig.node.run(["/bin/touch", "/lus/udi/x"]).stderr
        done, down = rig.set_up(rig.plan()), rig.tear_down()
    assert rig.node.run([word.format("rw") for word in remount]).returncode == 0
    assert done.ok and down.ok, (done.words, down.words)
    assert before.difference(rig.picture()) == []
