"""Jobs under real Slurm in environments that the site's staff make, and in those that `~/.chos` names."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from slurmsim import site
from tests.gateway.archives import layer_tar
from tests.slurm.cluster import ALICE, BOB, LOOK, Slurm
from tests.system import images

_SL6 = '[sl6]\npath = "/scratch/chos/sl6"\nbinds = ["/scratch/common:/usr/common:ro"]\nenv = {CHOS = "sl6"}\n'
_LOOK = f"{LOOK}; echo $CHOS $(cat /usr/common/shown) $UDI_IMAGE"


class Staff:
    """Who makes environments, and the map; `home_file` of the site is on."""

    def __init__(self, slurm: Slurm) -> None:
        self.slurm = slurm
        top = slurm.cluster.directory
        self.map = top / "etc-udi/chos.d"
        self.map.mkdir(exist_ok=True)
        self.map.chmod(0o755)
        self.plugstack = top / "etc-slurm/plugstack.conf"
        tree, common = top / "scratch/chos/sl6", top / "scratch/common"
        if not tree.exists():
            tree.mkdir(parents=True)
            for entries in images.tiny("made-by-staff"):
                subprocess.run(["tar", "-xpf", "-", "-C", tree], input=layer_tar(entries), check=True)
            tree.chmod(0o755)
            common.mkdir(mode=0o755)
            (common / "shown").write_text("shown\n")

    def write(self, text: str) -> None:
        (self.map / "site.toml").write_text(text)
        (self.map / "site.toml").chmod(0o644)

    def publish(self) -> None:
        done = self.slurm.cluster.run_as("udi", "/opt/udi/bin/udi-gateway", "chos", "publish", cwd="/")
        assert done.returncode == 0, done.stderr

    def home_file(self, user: str, text: str | None) -> None:
        words = ("rm", "-f") if text is None else ("sh", "-c", f"printf '{text}' >$HOME/.chos")
        self.slurm.run(user, *words, *(["/home/" + user + "/.chos"] if text is None else []))


@pytest.fixture
def staff(slurm: Slurm) -> Iterator[Staff]:
    staff = Staff(slurm)
    cluster = slurm.cluster
    before = staff.plugstack.read_text()
    staff.plugstack.write_text(before.replace(" seconds=", " home=yes seconds="))
    site.configure(cluster, {"chos": {"home_file": True}})
    try:
        yield staff
    finally:
        for user in ("alice", "bob"):
            staff.home_file(user, None)
        staff.write("")
        staff.publish()
        staff.plugstack.write_text(before)
        site.configure(cluster, {})


def test_two_users_one_who_may_not_and_the_file_at_home(staff: Staff) -> None:
    slurm = staff.slurm
    staff.write(_SL6)
    staff.publish()
    for user, uid in (("alice", ALICE), ("bob", BOB)):
        code, said = slurm.batch(user, _LOOK, "--image=chos:sl6")
        assert code == 0, said
        first, second = said.splitlines()
        assert first.split()[1:] == ["made-by-staff", str(uid)] and second == "sl6 shown chos:sl6"
    staff.home_file("alice", "sl6\\n")
    assert slurm.batch("alice", _LOOK)[1].splitlines()[1] == "sl6 shown chos:sl6"
    done = slurm.run("alice", "srun", "sh", "-c", LOOK)
    assert done.stdout.split()[1:] == ["made-by-staff", str(ALICE)], done.stderr
    assert "NO IMAGE" in slurm.batch("alice", LOOK, "--image=none")[1]
    assert "tiny:1" in slurm.batch("alice", LOOK, "--image=tiny:1")[1]
    staff.home_file("alice", "elsewhere\\n")
    done = slurm.run("alice", "srun", "sh", "-c", LOOK)
    assert "NO IMAGE" in done.stdout
    assert "~/.chos names 'elsewhere', which the site does not have" in done.stderr
    staff.write(_SL6 + 'users = ["alice"]\n')
    staff.home_file("bob", "sl6")
    for options in (("--image=chos:sl6",), ()):
        done = slurm.run("bob", "srun", *options, "true")
        assert done.returncode != 0 and "bob may not use the environment sl6" in done.stderr
    slurm.await_clean()


def test_who_is_taken_off_the_map_while_the_job_waits(staff: Staff) -> None:
    slurm = staff.slurm
    staff.write(_SL6)
    staff.publish()
    job = slurm.submit("alice", LOOK, "--hold", "--image=chos:sl6")
    staff.write(_SL6 + 'groups = ["climate"]\n')
    slurm.run("alice", "scontrol", "release", job)
    slurm.await_state(job, "FAILED", "COMPLETED", "CANCELLED")
    assert "alice may not use the environment sl6" in slurm.output("alice", job)
    slurm.await_clean()
