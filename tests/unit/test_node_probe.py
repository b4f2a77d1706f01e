"""What a node says of itself for `check-config --nodes`: the probe in mount namespaces, each with a damage."""

from __future__ import annotations

import dataclasses
import os
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from admin.checks.check import Level, Row
from admin.checks.node_paths import node_paths
from admin.checks.nodes import Expected, facts_for_nodes, rows_of_nodes
from admin.checks.software import installed_digest
from nodehealth import autoload, probe
from tests.unit.test_config_check import NOBODY
from udi import nodezip
from udi.config import SiteConfig, parse
from udi.fanout import Answers
from udi.nodecommand import probe_here
from udi.nodes import named
from udiroot.report import NodeReport

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: namespaces, and the store is another's")

NONCE = "ab" * 16
_ALONE = ("unshare", "-m", "-p", "-f", "--mount-proc")
"""With no mounts and processes of other tests' nodes."""
NAME = os.uname().nodename
NODE = named(NAME)


@dataclass
class Node:
    """A node of its own mounts: the zip of a site, a store with one image, and what is done before the probe."""

    directory: Path
    site: SiteConfig

    def probe(self, damage: str = "true") -> NodeReport:
        argv = probe_here(self.site, facts_for_nodes(self.site), NONCE)
        script = f"set -e; mount --make-rprivate /; {damage}; exec {shlex.join(argv)}"
        done = subprocess.run([*_ALONE, "sh", "-c", script], capture_output=True, text=True, check=False)
        report = NodeReport.parse(done.stdout, NONCE)
        assert report is not None, done.stdout + done.stderr
        return report

    def rows(self, damage: str = "true", running: tuple[str, ...] = ()) -> list[Row]:
        answers = Answers([NODE], lambda _: NAME, NONCE)
        answers.read(self.probe(damage).line(NONCE))
        expected = Expected(installed_digest(self.site), running)
        return rows_of_nodes(self.site, answers.result("never"), expected)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    directory = tmp_path_factory.mktemp("node")
    for above in (directory, *directory.parents[:-1]):
        above.chmod(above.stat().st_mode | 0o055)
    text = f"""\
[store]
path = "{directory}/store"
account = "nobody"
[node]
root = "{directory}/var/udi"
run = "{directory}/run/udi"
zip = "{directory}/udi.zip"
python = ["/usr/bin/python3"]
tmp_bytes = 1048576
modules = ["loop.ko", "squashfs.ko"]
module_path = "{directory}/modules/{{release}}"
filesystems = [{{source = "{directory}/lus"}}, {{source = "{directory}/site", target = "/site"}}]
steps = [{{kind = "bind", source = "{directory}/site/motd", target = "/etc/motd"}}]
[volumes]
allowed = ["{directory}/lus/users"]
[modules.gpu]
present = ["{directory}/gpu/version"]
mounts = ["{directory}/gpu/lib:/opt/gpu:ro"]
[modules.tool]
mounts = ["{directory}/site:/opt/site:ro"]
[install]
zip = "{directory}/udi.zip"
"""
    site = parse(text, "udi.toml")
    nodezip.build(site, site.node.zip)
    (directory / "store/images").mkdir(parents=True)
    (directory / f"store/images/{'ab' * 32}.squashfs").write_bytes(b"hsqs" + bytes(5000))
    for path in (directory / "store", *(directory / "store").rglob("*")):
        os.chown(path, NOBODY.uid, NOBODY.gid)
        path.chmod(0o700)
    for name in ("var", "run", "lus", "lus/users", "site", "gpu", "gpu/lib"):
        (directory / name).mkdir()
    for name in ("site/motd", "gpu/version"):
        (directory / name).touch()
    yield Node(directory, site)


def bad(rows: list[Row]) -> list[tuple[str, str]]:
    return [(row.check, row.level.value) for row in rows if row.level is not Level.OK]


def test_a_node_that_has_all(made: Node) -> None:
    rows = made.rows()
    assert bad(rows) == []
    assert [row.check for row in rows] == [
        "node.start", "node.zip", "node.store", "node.filesystem", "node.loop", "node.memory", "node.paths",
        "node.modules", "node.root",
    ]  # fmt: skip
    assert {row.nodes for row in rows} == {(NODE,)}
    assert not os.path.exists(made.site.node.run), "nothing is left, and nothing was made"


_LOOPS = "mount -t tmpfs dev /dev; mknod -m 666 /dev/null c 1 3"
_MODULES = "mkdir -p {0}/modules/$(uname -r); touch {0}/modules/$(uname -r)/squashfs.ko {0}/modules/$(uname -r)/loop.ko"
_NO_SQUASHFS = "grep -v squashfs /proc/filesystems >{0}/kinds; mount --bind {0}/kinds /proc/filesystems"
_MEMORY = "printf 'MemTotal: 9999 kB\\nMemFree: {1} kB\\nCached: 10 kB\\n' >{0}/mem; mount --bind {0}/mem /proc/meminfo"
_OTHER_ZIP = "cp {0}/udi.zip {0}/old; printf x >>{0}/old; mount --bind {0}/old {0}/udi.zip"
_ONE_LOOP = (
    f"{_LOOPS}; mknod /dev/loop0 b 7 0; mknod /dev/loop1 b 7 1; mount -t tmpfs block /sys/block;"
    " mkdir -p /sys/block/loop0/loop /sys/block/loop1/loop; touch /sys/block/loop0/loop/backing_file"
)
"""The first of two has a file; without /dev/loop-control, as on kernels of old, none is made as it is needed."""
_CLOSED = "mount -t tmpfs -o mode=755 store {0}/store"


DAMAGES: list[tuple[str, tuple[str, str], str]] = [
    (_NO_SQUASHFS, ("node.filesystem", "error"), "no squashfs"),
    (_LOOPS, ("node.loop", "error"), "no loop devices"),
    (_MEMORY.replace("{1}", "2000"), ("node.memory", "error"), "less than 256 MiB"),
    (_CLOSED, ("node.store", "error"), "No such file"),
    (
        "head -c 5000 /dev/zero >{0}/zero; mount --bind {0}/zero {0}/store/images/*.squashfs; chmod 644 {0}/zero",
        ("node.store", "error"),
        "another file",
    ),
    ("touch {0}/var/udi", ("node.root", "error"), "must be a directory of root's"),
    ("mkdir -p {0}/var/udi; mount -t tmpfs udi:77:1000:made {0}/var/udi", ("node.root", "error"), "of job 77"),
    (_OTHER_ZIP, ("node.zip", "error"), "other content"),
    (_ONE_LOOP, ("node.loop", "warning"), "one loop device is free"),
    (_ONE_LOOP + "; touch /sys/block/loop1/loop/backing_file", ("node.loop", "error"), "no loop device is free"),
    ("mount -t tmpfs empty {0}/site", ("node.paths", "error"), "site/motd (node.steps[0])"),
    ("mount -t tmpfs empty {0}/lus", ("node.paths", "warning"), "lus/users (volumes.allowed)"),
    ("mount -t tmpfs empty {0}/gpu", ("node.modules", "warning"), "gpu/version (modules.gpu.present)"),
    ("mount -t tmpfs empty {0}/gpu; touch {0}/gpu/version", ("node.modules", "error"), "gpu/lib (modules.gpu.mounts)"),
    ("mount -t tmpfs run {0}/run; mkdir -p {0}/run/udi/88", ("node.root", "error"), "of job 88"),
]


@pytest.mark.parametrize(("damage", "expected", "words"), DAMAGES)
def test_a_damage_of_the_node(made: Node, damage: str, expected: tuple[str, str], words: str) -> None:
    try:
        rows = made.rows(damage.replace("{0}", str(made.directory)))
        assert bad(rows) == [expected]
        [row] = [row for row in rows if row.level is not Level.OK]
        assert words in row.what and row.todo
    finally:
        subprocess.run(["rm", "-rf", "--one-file-system", made.directory / "var/udi"], check=True)


def test_less_memory_than_a_job_may_fill(made: Node) -> None:
    larger = dataclasses.replace(made.site, node=dataclasses.replace(made.site.node, tmp_bytes=512 << 20))
    node = Node(made.directory, larger)
    for free, expected in ((300, [("node.memory", "warning")]), (600, [])):
        damage = _MEMORY.replace("{1}", str(free << 10)).replace("{0}", str(made.directory))
        assert bad(node.rows(damage)) == expected


def test_a_host_without_the_zip_cannot_compare(made: Node) -> None:
    answers = Answers([NODE], lambda _: NAME, NONCE)
    answers.read(made.probe().line(NONCE))
    rows = rows_of_nodes(made.site, answers.result("never"), Expected("", ()))
    assert bad(rows) == [("node.zip", "warning")]


def test_modules_that_can_be_loaded(made: Node) -> None:
    """A Cray's kernel has neither built in. Where a kernel loads no modules at all, their files are of no use."""
    modules = made.directory / "modules" / os.uname().release
    modules.mkdir(parents=True)
    for name in ("loop", "squashfs"):
        (modules / f"{name}.ko").touch()
    damage = f"{_NO_SQUASHFS}; {_LOOPS}".replace("{0}", str(made.directory))
    try:
        rows = {row.check: row for row in made.rows(damage)}
    finally:
        subprocess.run(["rm", "-r", modules], check=True)
    two = ("node.filesystem", "node.loop")
    if os.path.exists("/proc/modules"):
        assert bad(list(rows.values())) == []
        assert all("to be loaded" in rows[name].what for name in two)
    else:
        assert bad(list(rows.values())) == [(name, "error") for name in two]


def test_what_a_cray_with_modules_reports(made: Node) -> None:
    answers = Answers([NODE], lambda _: NAME, NONCE)
    words = "zip=no python=3.11.2 kind=can loop=can memory=4096 absent=0 root=clean store=empty"
    answers.read(NodeReport(NAME, 0, 1, words).line(NONCE))
    rows = {row.check: row for row in rows_of_nodes(made.site, answers.result(""), Expected("ab" * 32, ()))}
    assert bad(list(rows.values())) == [("node.zip", "error")]
    assert "to be loaded" in rows["node.filesystem"].what and "to be loaded" in rows["node.loop"].what


@pytest.mark.parametrize(
    ("damage", "loads"),
    [
        ("true", True),
        ("echo 'blacklist cramfs' >modprobe.d/site.conf", True),
        ("echo 'install squashfs /bin/false' >modprobe.d/site.conf.off", True),
        ("echo '  install  squashfs /bin/false' >modprobe.d/site.conf", False),
        ("echo 'blacklist squashfs' >modprobe.d/site.conf", False),
        ("rm modules/*/fs/squash.ko.xz", False),
        ("rm modules/*/modules.dep", False),
        ("chmod 644 modprobe", False),
        (": >name", False),
        ("echo 1 >disabled", False),
    ],
)
def test_a_kernel_that_loads_squashfs_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str, loads: bool
) -> None:
    """As those of distributions do. A kernel here need not have modules at all, so its files are others."""
    names = {"_MODPROBE": "name", "_DISABLED": "disabled", "_MODULES": "modules"}
    for constant, name in names.items():
        monkeypatch.setattr(autoload, constant, f"{tmp_path}/{name}")
    monkeypatch.setattr(autoload, "_DIRECTORIES", (f"{tmp_path}/none", f"{tmp_path}/modprobe.d"))
    (tmp_path / "name").write_text(f"{tmp_path}/modprobe\n")
    (tmp_path / "disabled").write_text("0\n")
    (tmp_path / "modprobe").write_text("#!/bin/sh\n")
    (tmp_path / "modprobe").chmod(0o755)
    (tmp_path / "modprobe.d").mkdir()
    modules = tmp_path / "modules" / os.uname().release
    (modules / "fs").mkdir(parents=True)
    (modules / "fs/squash.ko.xz").touch()
    (modules / "modules.dep").write_text("fs/other.ko.xz:\nfs/squash.ko.xz: fs/other.ko.xz\n")
    damage = damage.replace("squashfs", "squash")
    subprocess.run(["sh", "-c", damage], cwd=tmp_path, check=True)
    assert not autoload.loads_itself("other"), "it is in the list, and not in its place"
    assert probe._kind("squash", ()) == ("itself" if loads else "lacks"), "of that name no kernel has any built in"


def test_paths_that_do_not_fit_into_a_report_are_left_out(made: Node) -> None:
    volumes = dataclasses.replace(made.site.volumes, allowed=tuple(f"/no/such/{number}" for number in range(300)))
    site = dataclasses.replace(made.site, volumes=volumes)
    node = Node(made.directory, site)
    assert 100 < len(node_paths(site)) < 300
    rows = {row.check: row for row in node.rows()}
    assert bad(list(rows.values())) == [("node.paths", "warning")]
    assert "/no/such/0 (volumes.allowed)" in rows["node.paths"].what and " more" in rows["node.paths"].what


def test_what_a_node_reports_whose_kernel_loads_squashfs_itself(made: Node) -> None:
    answers = Answers([NODE], lambda _: NAME, NONCE)
    words = "zip=no python=3.11.2 kind=itself loop=any memory=4096 absent=0 root=clean store=empty"
    answers.read(NodeReport(NAME, 0, 1, words).line(NONCE))
    rows = {row.check: row for row in rows_of_nodes(made.site, answers.result(""), Expected("", ()))}
    assert bad(list(rows.values())) == [("node.zip", "warning")]
    assert rows["node.filesystem"].what == "squashfs can be loaded: the kernel does that when an image is mounted"


def test_a_root_of_a_job_that_runs_is_in_its_place(made: Node) -> None:
    damage = f"mkdir -p {made.directory}/var/udi; mount -t tmpfs udi:77:1000:made {made.directory}/var/udi"
    assert bad(made.rows(damage, running=("77",))) == []
    assert bad(made.rows(damage, running=("78",))) == [("node.root", "error")]


def test_thousands_of_nodes_with_the_same_fault_are_one_row(made: Node) -> None:
    report = made.probe()
    nodes = [named(f"nid{number:05d}") for number in range(3000)]
    answers = Answers(nodes, str, NONCE)
    for node in nodes[:-2]:
        report.node = node.name
        report.milliseconds = node.number or 0
        answers.read(report.line(NONCE))
    rows = rows_of_nodes(made.site, answers.result("not within 90 seconds"), Expected("cd" * 32, ()))
    assert bad(rows) == [("node.start", "error"), ("node.zip", "error")]
    silent, _, zips, *_ = rows
    assert silent.nodes == (*nodes[-2:],) and "not within 90 seconds" in silent.what
    assert zips.nodes == (*nodes[:-2],) and "other content" in zips.what


def test_a_report_of_a_node_that_says_nothing_else(made: Node) -> None:
    """A report that was cut, or one of another version, is no traceback."""
    answers = Answers([NODE], lambda _: NAME, NONCE)
    answers.read(NodeReport(NAME, 0, 1, "clean").line(NONCE))
    rows = rows_of_nodes(made.site, answers.result(""), Expected("", ()))
    assert {row.level for row in rows} == {Level.ERROR, Level.WARNING}


def test_a_store_without_images(made: Node) -> None:
    site = dataclasses.replace(made.site, store=dataclasses.replace(made.site.store, path=f"{made.directory}/none"))
    assert "image" not in facts_for_nodes(site)
