"""`udi-run` in roots: images without a shell, with an unhelpful one, and working directories that nobody can enter."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.node.rig import ALICE, Rig, make_tree
from udi import nodezip
from udi.accounts import Account
from udi.facts import Facts
from udi.rundata import run_data
from udiroot.plan import PlanFile
from udiroot.sitemodules import RUN
from xcsim.entering import Entry

_ME = Account("alice", ALICE.uid, ALICE.gid, ALICE.groups, "/home/alice", "/bin/bash")
UDI_RUN = "/opt/udi/bin/udi-run"


class Image:
    """An image of the rig's store, and alice's root of it."""

    def __init__(self, rig: Rig, name: str) -> None:
        self.rig, self.id = rig, name * 32
        self.tree = rig.directory / f"tree-{name}"
        self.tree.mkdir()

    def set_up(self, **facts: object) -> None:
        if not (self.rig.directory / f"store/images/{self.id}.squashfs").exists():
            self.rig.make_image("squashfs", self.id, self.tree)
        values: dict[str, object] = {"id": self.id, "format": "squashfs", "size": 1, "sha256": "0" * 64}
        data = run_data(Facts(**(values | facts)), self.rig.site.environment, _ME, "app:1")  # type: ignore[arg-type]
        files = (PlanFile(RUN, 0o444, data),)
        path = f"/lus/udi/images/{self.id}.squashfs"
        done = self.rig.set_up(self.rig.plan(image_path=path, image_id=self.id, files=files))
        assert done.ok, done.words

    def run(self, *words: str, cwd: str = "/", env: dict[str, str] | None = None) -> tuple[int, str, str]:
        """As aprun starts it: chrooted, as the user, in the job's directory where the root has that."""
        entry = Entry(ALICE.uid, ALICE.gid, ALICE.groups, self.rig.site.node.root, cwd, no_new_privileges=True)
        process = self.rig.node.popen(
            [UDI_RUN, *words], entry=entry, env=env or {}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err


@pytest.fixture
def image(rig: Rig, request: pytest.FixtureRequest) -> Iterator[Image]:
    made = Image(rig, f"{0xA0 + sum(map(ord, request.node.name)) % 0x50:02x}")
    yield made
    assert rig.tear_down().ok
    shutil.rmtree(made.tree)
    (rig.directory / f"store/images/{made.id}.squashfs").unlink()


def test_an_image_with_one_static_program_and_no_shell(image: Image) -> None:
    shutil.copy("/bin/busybox", image.tree / "busybox")
    image.set_up(env=("UID=1000", "a.b-c=x"), entrypoint=("/busybox",), cmd=("env",))
    code, out, err = image.run()
    assert (code, err) == (0, "")
    assert {"UID=1000", "a.b-c=x", "HOME=/home/alice", "USER=alice", "PWD=/", "UDI_IMAGE=app:1"} <= set(out.split("\n"))
    assert image.run("--args", "id", "-u") == (0, "1001\n", "")
    assert image.run("sh", "-c", "true")[:2] == (127, "")
    assert "SHELL=/bin/bash\n" in out


def test_an_image_whose_shell_is_bash(image: Image) -> None:
    """bash holds UID, EUID and PPID readonly, and drops names that are none of its own."""
    make_tree(image.tree)
    (image.tree / "bin/sh").unlink()
    _copy_with_libraries("/bin/bash", image.tree, "bin/sh")
    _copy_with_libraries("/usr/bin/env", image.tree, "bin/env")
    image.set_up(env=("PATH=/bin", "UID=1000", "EUID=0", "PPID=1", "BASH_ENV=/entry", "my.name=1", "my-name=2"))
    code, out, err = image.run("env")
    assert (code, err) == (0, "")
    assert {"UID=1000", "EUID=0", "PPID=1", "my.name=1", "my-name=2", "BASH_ENV=/entry"} <= set(out.split("\n"))
    assert image.run("--unset", "BASH_ENV", "sh", "-c", "echo ran") == (0, "ran\n", "")


def test_working_directories(image: Image) -> None:
    make_tree(image.tree)
    (image.tree / "closed").mkdir(mode=0o700)
    (image.tree / "projects/app").mkdir(parents=True)
    (image.rig.directory / "scratch/alice/job").mkdir(exist_ok=True)
    for workdir, expected, reason in (
        ("/analysis", "/analysis", ""),
        ("analysis", "/analysis", ""),
        ("", "/", ""),
        ("/absent", "/scratch/alice/job", "No such file or directory"),
        ("/closed", "/scratch/alice/job", "Permission denied"),
        ("/etc/passwd", "/scratch/alice/job", "Not a directory"),
        ("/projects/app", "/scratch/alice/job", "No such file or directory"),  # below a site file system
    ):
        image.set_up(workdir=workdir, env=("PATH=/bin",))
        code, out, err = image.run("sh", "-c", "pwd; echo $PWD", cwd="/scratch/alice/job")
        assert (code, out.split()) == (0, [expected] * 2), workdir
        assert re.search(rf"^udi-run: warning: .*{reason}.*\n$" if reason else "^$", err), err
        if workdir == "/absent":
            assert image.run("sh", "-c", "pwd", cwd="/nowhere", env={"PWD": "/nowhere"})[1] == "/\n"
            assert image.run("--workdir", "/analysis", "sh", "-c", "pwd") == (0, "/analysis\n", "")
        assert image.rig.tear_down().ok


def test_node_software_without_the_program_is_the_site_s_fault(image: Image) -> None:
    rig = image.rig
    zipped = rig.directory / "software/udi.zip"
    kept = zipped.read_bytes()
    nodezip.build(rig.site, str(zipped))
    try:
        done = rig.set_up(rig.plan())
        assert done.code == 7
        assert "the node software has no program udi-run" in done.words
        assert rig.check() == (0, "udi: clean")
    finally:
        zipped.write_bytes(kept)
        make_tree(image.tree)
        image.set_up()


def _copy_with_libraries(program: str, tree: Path, name: str) -> None:
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    for library in re.findall(r"(/\S+) \(0x", listed):
        target = tree / library[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, target)
    shutil.copy(program, tree / name)
