"""What a node refuses: one line, an exit code that says who must act, and nothing left behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.node.rig import ALICE, BOB, IDENTITY_FILE, IMAGE_ID, STORE_UID, Rig
from udiroot.plan import PlanMount


@pytest.fixture(autouse=True)
def unchanged(rig: Rig) -> Iterator[None]:
    """Every refusal leaves the node as it was."""
    before = rig.picture()
    yield
    assert before.difference(rig.picture()) == []


def _volume(source: str, target: str) -> dict[str, Any]:
    return {"volumes": (PlanMount(source, target, False),)}


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        (_volume("/scratch/none", "/output"), 2, "No such file"),
        (_volume("/scratch2", "/output"), 4, "outside the directories that the site allows"),
        (_volume("/scratch/alice", "/proc"), 4, "no volume may be mounted on /proc"),
        (_volume("/scratch/alice", "/usr"), 4, "no volume may be mounted on /usr"),
        (_volume("/scratch/alice", "/scratch"), 4, "no volume may be mounted on /scratch"),
        (
            _volume("/scratch/alice", "/scratch/none"),
            2,
            "'/scratch/none' (in site file system /scratch) does not exist",
        ),
        (_volume("/scratch/alice", "/etc/app"), 4, "no volume may be mounted on /etc/app"),
        (_volume("/scratch/alice", "/lib"), 4, "no volume may be mounted on /lib"),
        (_volume("/dev/null", "/entry"), 4, "outside the directories"),
        ({"image_path": "/lus/udi/images/none"}, 7, "No such file"),
        ({"image_format": "ext4"}, 5, "no ext4 file system in it"),
        ({"store_uid": 991}, 5, f"owned by uid {STORE_UID}"),
        ({"sites": (PlanMount("/nowhere", "/nowhere", False),)}, 7, "/nowhere: No such file"),
        ({"sites": (PlanMount("/dev/null", "/x", False),)}, 7, "neither a directory nor a file"),
    ],
)
def test_refused(rig: Rig, changes: dict[str, Any], code: int, words: str) -> None:
    report = rig.set_up(rig.plan(**changes))
    assert (report.code, words in report.words) == (code, True), report.words


def test_volume_that_only_its_owner_can_reach(rig: Rig) -> None:
    """The source is opened with the user's own rights: bob has no way into alice's closed directory."""
    private = rig.directory / "scratch/alice/private"
    (private / "deep").mkdir(parents=True)
    os.chown(private, ALICE.uid, ALICE.gid)
    private.chmod(0o700)
    report = rig.set_up(rig.plan(user=BOB, **_volume("/scratch/alice/private/deep", "/output")))
    assert report.code == 2
    assert "Permission denied" in report.words
    done = rig.set_up(rig.plan(**_volume("/scratch/alice/private/deep", "/output")))
    assert done.ok, done.words
    assert rig.tear_down().ok


def test_volume_source_through_a_link_out_of_what_is_allowed(rig: Rig) -> None:
    link = rig.directory / "scratch/alice/out"
    link.symlink_to("/scratch2")
    report = rig.set_up(rig.plan(**_volume("/scratch/alice/out", "/output")))
    link.unlink()
    assert report.code == 4
    assert "/scratch2 is outside the directories that the site allows" in report.words


def test_image_that_others_may_write(rig: Rig) -> None:
    rig.image.chmod(0o646)
    report = rig.set_up(rig.plan())
    rig.image.chmod(0o444)
    assert report.code == 5
    assert "mode 0646 allows others to write it" in report.words


def test_truncated_image(rig: Rig) -> None:
    path = rig.directory / "store/images/short.squashfs"
    path.write_bytes(rig.image.read_bytes()[:2048])
    path.chmod(0o444)
    os.chown(path, STORE_UID, STORE_UID)
    report = rig.set_up(rig.plan(image_path="/lus/udi/images/short.squashfs"))
    assert report.code == 5
    assert f"image {IMAGE_ID[:12]} cannot be mounted" in report.words


def test_plan_of_another_version(rig: Rig) -> None:
    report = rig.set_up(rig.plan().text().replace("udi-plan 3", "udi-plan 2", 1))
    assert (report.code, "this node reads 'udi-plan 3'" in report.words) == (7, True)


def test_plan_that_was_changed_on_the_way(rig: Rig) -> None:
    path, _ = rig.send(rig.plan())
    from udi import nodecommand

    report = rig.answer(nodecommand.setup_command(rig.site, IDENTITY_FILE, path, "0" * 64, "ab" * 16), "ab" * 16)
    assert (report.code, "its sha256 differs" in report.words) == (7, True)


def test_image_with_a_dangerous_name(rig: Rig) -> None:
    from tests.node.rig import make_tree

    tree = rig.directory / "named"
    if not tree.exists():
        make_tree(tree)
        (tree / "etc/a\nb").write_text("")
        rig.make_image("squashfs", "ef" * 32, tree)
    report = rig.set_up(rig.plan(image_path=f"/lus/udi/images/{'ef' * 32}.squashfs"))
    assert report.code == 5
    assert "invalid name 'a\\\\nb' in /etc of the image" in report.words


def test_a_link_at_every_place_where_an_image_could_put_one(rig: Rig) -> None:
    """etc, var, opt, tmp, proc, dev as links to the node's own paths: new directories are created, no link followed."""
    from tests.node.rig import make_tree

    tree = rig.directory / "linked"
    if not tree.exists():
        make_tree(tree)
        for name in ("etc", "var", "opt", "tmp", "proc", "dev", "sys"):
            import shutil

            shutil.rmtree(tree / name)
            (tree / name).symlink_to(f"/{name}")
        rig.make_image("squashfs", "12" * 32, tree)
    done = rig.set_up(rig.plan(image_path=f"/lus/udi/images/{'12' * 32}.squashfs"))
    assert done.ok, done.words
    assert rig.inside("ls /etc; ls /opt").stdout == "group\nhosts\npasswd\nresolv.conf\nudi\n"
    assert rig.tear_down().ok


def test_plan_that_was_withdrawn_before_the_node_came_to_it(rig: Rig) -> None:
    """A set-up that is late, because its prologue was killed, must not follow the teardown that took the plan away."""
    path, sha256 = rig.send(rig.plan())
    from udi import nodecommand

    nonce = "ab" * 16
    command = nodecommand.setup_command(rig.site, IDENTITY_FILE, path, sha256, nonce)
    withdraw = (
        "import os, udiroot.commands as c; read = c._read_plan; "
        "c._read_plan = lambda path, sha256: (read(path, sha256), os.unlink(path))[0]; main()"
    )
    late = command.replace("main()", withdraw)
    assert late != command
    report = rig.answer(late, nonce)
    assert (report.code, "the plan was withdrawn" in report.words) == (7, True)
