"""The straight way: a root is set up, used as the user, taken down, and the node is as it was."""

from __future__ import annotations

import pytest

from tests.node.rig import Rig


@pytest.mark.parametrize("kind", ["squashfs", "ext4", "directory"])
def test_node_is_as_before_after_each_format(rig: Rig, kind: str) -> None:
    path = rig.folder / f"store/images/{'ab' * 32}.{kind}"
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
