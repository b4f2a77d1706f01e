"""Jobs in environments that the site's staff make: two users, one who may not; binds, variables, `~/.chos`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.archives import layer_tar
from tests.system import images
from tests.system.cray import Cray, home_of
from tests.system.scripts import expected, ranks

ALICE, BOB = 1001, 1002
_MAP = "/etc/udi/chos.d"
_SL6 = '[sl6]\npath = "/scratch/chos/sl6"\nbinds = ["/scratch/common:/usr/common:ro"]\nenv = {CHOS = "sl6"}\n'


class Staff:
    """Who makes environments, and the map."""

    def __init__(self, cray: Cray) -> None:
        self.cray = cray
        self.map = cray.machine.path(_MAP)
        self.map.mkdir(parents=True, exist_ok=True)
        self.map.chmod(0o755)
        tree = cray.machine.path("/scratch/chos/sl6")
        common = cray.machine.path("/scratch/common")
        if not tree.exists():
            self._make(tree)
            common.mkdir(mode=0o755)
            (common / "shown").write_text("the site's own\n")

    @staticmethod
    def _make(tree: Path) -> None:
        tree.mkdir(parents=True)
        for number, entries in enumerate(images.tiny("made by the staff")):
            archive = tree.parent / f"{number}.tar"
            archive.write_bytes(layer_tar(entries))
            subprocess.run(["tar", "-xpf", archive, "-C", tree], check=True)
            archive.unlink()
        tree.chmod(0o755)

    def write(self, text: str) -> None:
        (self.map / "site.toml").write_text(text)
        (self.map / "site.toml").chmod(0o644)

    def publish(self, *names: str) -> str:
        done = self.cray.machine.run_as("udi", ["/opt/udi/bin/udi-gateway", "chos", "publish", *names])
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def staff(cray: Cray) -> Iterator[Staff]:
    staff = Staff(cray)
    yield staff
    staff.write("")
    staff.publish()


def _note_id(staff: Staff, published: str) -> None:
    """The image is one of this machine's, for the pictures of its nodes."""
    staff.cray.ids["chos"] = published.split()[1]


def test_two_users_and_one_who_may_not(staff: Staff) -> None:
    cray = staff.cray
    staff.write(_SL6)
    assert (
        "the site has not published the environment sl6 yet" in cray.udi("alice", "lookup", "chos:sl6", code=6).stderr
    )
    _note_id(staff, staff.publish())
    look = "echo $CHOS $(cat /usr/common/shown) $(touch /usr/common/x 2>/dev/null && echo WRITABLE) $UDI_IMAGE"
    script = ranks() + f"aprun -q -n 1 -b /opt/udi/bin/udi-run sh -c '{look}'\n"
    for user, uid in (("alice", ALICE), ("bob", BOB)):
        ended = cray.run(user, script, image="chos:sl6")
        *lines, last = ended.output.splitlines()
        assert sorted(lines) == expected("made by the staff", uid), ended
        assert last == "sl6 the site's own chos:sl6"
    staff.write(_SL6 + 'groups = ["physics"]\n')
    assert "bob may not use the environment sl6" in cray.refused("bob", "-v", "UDI=chos:sl6")
    assert cray.run("alice", image="chos:sl6").state == "C"
    said = cray.refused("alice", "-v", "UDI=chos:sl6,UDI_VOLUMES=/scratch/common:/usr/common")
    assert "no volume may be mounted on /usr/common" in said
    assert "chos:sl6" in cray.admin("chos", "list").replace("sl6\t", "chos:sl6\t")
    assert "other users may use it" in cray.admin("chos", "check", code=2)
    cray.assert_clean()


def test_the_map_changes_while_a_job_waits(staff: Staff) -> None:
    """The map of the moment decides: who was taken off it is refused at the start, by the user's own error."""
    cray = staff.cray
    staff.write(_SL6)
    _note_id(staff, staff.publish())
    for text, said in (
        (_SL6 + 'users = ["bob"]\n', "alice may not use the environment sl6"),
        ("", "the site has no environment sl6"),
    ):
        staff.write(text)
        with cray.without_filter():  # which saw the map as it was
            ended = cray.run("alice", image="chos:sl6")
        assert ended.state == "C" and len(ended.codes) == 1, ended
        assert any(said in line for line in ended.log), ended
    staff.write(_SL6 + "user = 1\n")
    held = cray.run("alice", image="chos:sl6")
    assert (held.state, held.starts) == ("H", 2), held
    assert any("unknown key sl6.user" in line and "site.toml" in line for line in held.log), held
    cray.machine.run_as("root", ["qdel", held.id])
    cray.assert_clean()


def test_a_bind_that_the_nodes_lack_and_a_pin_on_another_name(staff: Staff) -> None:
    """The site's fault holds the job and says which path; a pin that a user wrote does not lead around the map."""
    cray = staff.cray
    staff.write(_SL6.replace("/scratch/common:", "/scratch/no-such:"))
    published = staff.publish()
    _note_id(staff, published)
    held = cray.run("alice", image="chos:sl6")
    assert held.state == "H", held
    assert any("/scratch/no-such" in line for line in held.log), held
    cray.machine.run_as("root", ["qdel", held.id])
    staff.write(_SL6 + 'users = ["bob"]\n')
    with cray.without_filter():
        forged = f"#UDI pinned tiny:1 {published.split()[1]}\n"
        ended = cray.run("alice", forged + ranks(), image="tiny:1")
    assert any("alice may not use the environment sl6" in line for line in ended.log), ended
    cray.assert_clean()


def test_the_file_at_home_is_honored_where_the_site_says_so(staff: Staff) -> None:
    cray = staff.cray
    staff.write(_SL6)
    _note_id(staff, staff.publish())
    home = cray.machine.path(f"{home_of('alice')}/.chos")
    home.write_text("sl6\n")
    os.chown(home, home.parent.stat().st_uid, home.parent.stat().st_gid)
    script = "#PBS -v A=1\n" + ranks() + "echo $A $CRAY_ROOTFS\n"
    outside = [f"rank {rank} in NO IMAGE as {ALICE}" for rank in range(4)]
    try:
        assert cray.run("alice", script, image="").output.splitlines()[-1] == "1"
        with cray.configured({"chos": {"home_file": True}}):
            *lines, last = cray.run("alice", script, image="").output.splitlines()
            assert (sorted(lines), last) == (expected("made by the staff", ALICE), "1 UDI")
            assert "~/.chos asks for chos:sl6, but qsub goes by its own -v alone" in cray.refused("alice", "-v", "B=1")
            for image, words in (("none", outside), ("tiny:1", expected(cray.marker("tiny:1"), ALICE))):
                assert set(words) <= set(cray.run("alice", ranks(), image=image).output.splitlines()), image
    finally:
        home.unlink()
    cray.assert_clean()
