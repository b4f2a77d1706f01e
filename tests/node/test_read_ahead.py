"""An image's file is read far ahead, so that a store is asked seldom."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.slowfs import Mounting, Service, SlowFileSystems
from tests.node.rig import IMAGE_ID, STORE_UID, Rig

READ, CLIENT = "15 ", 128 << 10
"""How the trace's line of a read begins, and the read-ahead of the store's client in bytes."""


def test_an_image_is_read_ahead_twice_as_far_as_the_stores_client_does_by_itself(rig: Rig, tmp_path: Path) -> None:
    tree, images = tmp_path / "tree", tmp_path / "images"
    for directory in (tree / "etc", tree / "data", images):
        directory.mkdir(parents=True)
    (tree / "data/large").write_bytes(os.urandom(16 << 20))
    made = rig.make_image("squashfs", "cd" * 32, tree)
    image = images / "image.squashfs"
    image.write_bytes(made.read_bytes())
    made.unlink()
    os.chown(image, STORE_UID, STORE_UID)
    image.chmod(0o444)
    assert rig.node.run(["/bin/mkdir", "/far"]).returncode == 0
    service = Service(0, read_ahead=CLIENT >> 10)
    with SlowFileSystems(images, service, [Mounting("/far", rig.node.pid)], tmp_path / "trace") as store:
        done = rig.set_up(rig.plan(image_path="/far/image.squashfs", image_id=IMAGE_ID))
        assert done.ok, done.words
        assert rig.node.run(["/bin/dd", "if=/var/udi/data/large", "of=/dev/null", "bs=1M"]).returncode == 0
        assert rig.tear_down().ok
        assert store.counts().read >= 16 << 20
    assert rig.node.run(["/bin/rmdir", "/far"]).returncode == 0
    sizes = [int(line.split()[2]) for line in (tmp_path / "trace").read_text().splitlines() if line.startswith(READ)]
    assert max(sizes) == 2 * CLIENT
