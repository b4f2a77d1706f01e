"""A root takes a mount anywhere: at any depth, over links and files of the image, in another mount, in any order.

Every case is tried on a kernel with overlay and on one without; both must show the same root.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.node import faults
from tests.node.anywhere import WAYS, image_of, set_up, sites_of, view_of, volumes_of
from tests.node.faults import Fault
from tests.node.rig import Rig
from tests.node.test_together import stopped
from udiroot.plan import PlanMount, PlanStep

TARGETS = (
    "/var/spool/alps",
    "/var/opt/cray",
    "/etc/opt/cray",
    "/usr/lib64/mpich",
    "/usr/lib/deep/er/than/that",
    "/a/b/c/d/e",
    "/opt/cray/mpt",
    "/home/site",
    "/data",
    "/tmp/site",
    "/var/tmp/x/y",
    "/run/munge",
    "/var/run/nscd",
    "/etc/app/more",
    "/var/lib/app/sub/sub",
    "/opt/cray/a,b:c",
    "/srv/with blank/\u00e9",
    "/srv/back\\slash/x",
)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("target", TARGETS)
def test_a_site_file_system_anywhere(furnished: Rig, target: str, way: str) -> None:
    set_up(furnished, furnished.plan(**sites_of(("/scratch/spool", target))), way)
    assert furnished.inside(f"cat '{target}/placement'").stdout == "spool/placement\n"
    assert "Read-only file system" in furnished.inside(f"mkdir -p '{target}x' 2>&1 || :").stdout or target[:4] in (
        "/tmp",
        "/var",
    )
    assert furnished.inside("cat /etc/os-release /etc/app/conf").stdout == "NAME=tiny\nx=1\n"
    assert furnished.inside("ls -d /usr/lib /opt/app /var/lib/app /bin/sh").returncode == 0


@pytest.mark.parametrize("way", WAYS)
def test_all_of_them_at_once_and_in_any_order(furnished: Rig, way: str) -> None:
    for targets in (TARGETS, TARGETS[::-1]):
        set_up(furnished, furnished.plan(**sites_of(*(("/scratch/spool", target) for target in targets))), way)
        for target in targets:
            assert furnished.inside(f"cat '{target}/placement'").stdout == "spool/placement\n", target
        assert furnished.tear_down().words == "clean"


def test_both_ways_show_the_same_root(furnished: Rig) -> None:
    def change(tree: Path) -> None:
        (tree / "var/spool/cron").mkdir(parents=True)
        (tree / "var/spool/cron").chmod(0o700)
        (tree / "var/spool").chmod(0o2751)
        os.chown(tree / "var/spool", 12, 13)
        os.mkfifo(tree / "var/fifo")
        (tree / "etc/deep/er").mkdir(parents=True)
        (tree / "etc/deep/file").write_text("x")
        (tree / "etc/deep/link").symlink_to("file")
        (tree / "usr/share").mkdir()
        (tree / "usr/share/file").write_text("x")
        (tree / "lib64").symlink_to("usr/lib")
        (tree / "var/mail").symlink_to("spool")

    plan = furnished.plan(
        **image_of(furnished, "a0" * 32, change),
        **sites_of(*(("/scratch/spool", target) for target in (*TARGETS, "/etc/deep/new", "/lib64/x", "/var/mail/y"))),
    )
    views = []
    for way in (*WAYS, "old", "with a simple overlay"):
        set_up(furnished, plan, way)
        views.append(view_of(furnished))
        assert furnished.tear_down().words == "clean"
    assert len(views[0]) > 60
    assert any("/var/spool/cron drwx------" in line for line in views[0])
    for view in views[1:]:
        assert view == views[0]


LINKS = (
    *("/etc", "/opt/udi", "/proc", "/dev", "/", "/usr", "/tmp", "/var/nodelist", "/nowhere"),
    *("scratch", "../../..", "/proc/self/root", "/bin/sh"),
)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("link", LINKS)
def test_a_link_of_the_image_where_a_mount_belongs_is_replaced(furnished: Rig, link: str, way: str) -> None:
    def change(tree: Path) -> None:
        (tree / "scratch").symlink_to(link)
        shutil.rmtree(tree / "home")
        (tree / "home").symlink_to(link)

    image = image_of(furnished, f"{abs(hash(link)) % 10**8:08d}" * 8, change)
    plan = furnished.plan(**image, **sites_of(("/scratch/spool", "/scratch"), ("/scratch/site", "/home/site")))
    set_up(furnished, plan, way)
    assert furnished.inside("cat /scratch/placement /home/site/mark").stdout == "spool/placement\nsite/mark\n"
    assert furnished.inside("cat /etc/passwd").stdout.startswith("root:x:0:0::/root:/bin/sh\nalice:")
    assert (
        furnished.inside("ls /etc/placement /opt/udi/placement /proc/placement /dev/placement /placement").stdout == ""
    )
    assert furnished.inside("/opt/udi/bin/udi-run cat /var/nodelist").stdout.startswith("nid00012\n")


@pytest.mark.parametrize("way", WAYS)
def test_a_live_link_above_a_mount_still_leads_to_the_image(furnished: Rig, way: str) -> None:
    """`/lib -> usr/lib`: what is mounted below the one is below the other, and nothing of the image is hidden."""

    def change(tree: Path) -> None:
        (tree / "usr/lib/ld.so").write_text("loader\n")

    plan = furnished.plan(**image_of(furnished, "a1" * 32, change), **sites_of(("/scratch/mpi/lib", "/lib/mpich")))
    set_up(furnished, plan, way)
    assert (
        furnished.inside("cat /lib/mpich/libmpich.so /usr/lib/mpich/libmpich.so").stdout == "mpi/lib/libmpich.so\n" * 2
    )
    assert furnished.inside("cat /lib/ld.so /usr/lib/ld.so; ls -d /lib").stdout == "loader\nloader\n/lib\n"


@pytest.mark.parametrize("way", WAYS)
def test_a_volume_that_hides_what_the_image_has_is_told(furnished: Rig, way: str) -> None:
    """Also behind a link; nothing is said of an empty directory, of none, of a file, and of what lies in a volume."""

    def change(tree: Path) -> None:
        (tree / "data/kept").write_text("kept\n")
        (tree / "usr/share/doc").mkdir(parents=True)
        (tree / "alias").symlink_to("usr")

    source = "/scratch/alice/in"
    targets = ("/data", "/alias/share", "/analysis", "/new/place", "/srv")
    volumes = [(source, target) for target in targets] + [("/scratch/alice/file", "/entry")]
    volumes += [("/scratch/alice", "/out"), (source, "/out/analysis")]
    plan = furnished.plan(**image_of(furnished, "c7" * 32, change), **volumes_of(*volumes))
    report = faults.set_up(furnished, plan, Fault(kernel=way)).report
    assert report and report.ok and report.warns, report
    assert report.left == ("hides=2",)
    told = {f"volume {source}:{target} hides what the image has there" for target in targets[:2]}
    assert set(report.words.split("; ")) == told


@pytest.mark.parametrize("way", WAYS)
def test_a_mount_in_another_one_below_a_live_link(furnished: Rig, way: str) -> None:
    """`/var/run -> /run`: the inner one goes to where the outer one is, and the link stays."""
    sites = sites_of(
        ("/scratch/site/inner", "/lib/n/inner"), ("/scratch/site", "/lib/n"), ("/scratch/spool", "/var/run/n")
    )
    set_up(furnished, furnished.plan(**sites, **volumes_of(("/scratch/alice/in", "/var/run/n/state"))), way)
    assert furnished.inside("cat /usr/lib/n/mark /usr/lib/n/inner/mark").stdout == "site/mark\nsite/inner/mark\n"
    assert furnished.inside("cat /run/n/placement; ls -d /lib /var/run").stdout == "spool/placement\n/lib\n/var/run\n"
    assert furnished.inside("echo x > /run/n/state/x; cat /var/run/n/state/x; rm /run/n/state/x").stdout == "x\n"
    assert furnished.inside("test -L /lib && test -L /var/run").returncode == 0


@pytest.mark.parametrize("way", WAYS)
def test_two_links_to_one_directory_do_not_put_two_mounts_at_one_place(furnished: Rig, way: str) -> None:
    def change(tree: Path) -> None:
        (tree / "one").symlink_to("data")
        (tree / "two").symlink_to("data")
        (tree / "data/kept").write_text("kept\n")

    sites = sites_of(("/scratch/spool", "/one/x"), ("/scratch/site", "/two/x"), ("/scratch/mpi", "/data/x"))
    set_up(furnished, furnished.plan(**image_of(furnished, "a2" * 32, change), **sites), way)
    shown = furnished.inside("cat /one/x/placement /two/x/mark /data/x/lib/libmpich.so").stdout
    assert shown == "spool/placement\nsite/mark\nmpi/lib/libmpich.so\n"
    assert furnished.inside("cat /one/kept /two/kept /data/kept").stdout == "kept\n" * 3


@pytest.mark.parametrize("way", WAYS)
def test_a_link_to_another_mount_is_not_a_way_into_it(furnished: Rig, way: str) -> None:
    def change(tree: Path) -> None:
        (tree / "alias").symlink_to("data")

    sites = sites_of(("/scratch/site", "/data"), ("/scratch/spool", "/alias/below"))
    set_up(furnished, furnished.plan(**image_of(furnished, "a3" * 32, change), **sites), way)
    assert furnished.inside("cat /data/mark /alias/below/placement").stdout == "site/mark\nspool/placement\n"
    assert not (furnished.directory / "scratch/site/below").exists()


@pytest.mark.parametrize("way", WAYS)
def test_files_and_loops_where_a_mount_belongs(furnished: Rig, way: str) -> None:
    def change(tree: Path) -> None:
        (tree / "plain").write_text("x")
        (tree / "usr/plain").write_text("x")
        (tree / "loop").symlink_to("loop")
        (tree / "a").symlink_to("b")
        (tree / "b").symlink_to("a")
        os.mknod(tree / "usr/null", 0o20666, os.makedev(1, 3))
        os.mkfifo(tree / "usr/fifo")

    targets = ("/plain", "/usr/plain/deeper", "/loop", "/a/x", "/usr/null/y", "/usr/fifo")
    sites = sites_of(*(("/scratch/spool", target) for target in targets))
    set_up(furnished, furnished.plan(**image_of(furnished, "a4" * 32, change), **sites), way)
    for target in targets:
        assert furnished.inside(f"cat {target}/placement").stdout == "spool/placement\n", target


@pytest.mark.parametrize("way", WAYS)
def test_a_mount_in_another_mount(furnished: Rig, way: str) -> None:
    """An inner one is mounted on what the outer one has, whichever is declared first."""
    sites = sites_of(("/scratch/spool", "/opt/cray/inner"), ("/scratch/site", "/opt/cray"))
    set_up(
        furnished,
        furnished.plan(**sites, volumes=(PlanMount("/scratch/alice/in", "/opt/cray/inner/state", True),)),
        way,
    )
    shown = furnished.inside("cat /opt/cray/mark /opt/cray/inner/placement; ls /opt/cray/inner").stdout
    assert shown == "site/mark\nspool/placement\nplacement\nstate\n"


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        (sites_of(("/scratch/site", "/opt/cray"), ("/scratch/spool", "/opt/cray/none")), 7,
         "site file system /scratch/spool: '/opt/cray/none' (in site file system /scratch/site) does not exist"),
        (sites_of(("/scratch/site", "/opt/cray"), ("/scratch/spool", "/opt/cray/mark")), 7, "is not a directory"),
        (volumes_of(("/scratch/alice", "/out"), ("/scratch/alice/in", "/out/none")), 2, "does not exist"),
        (volumes_of(("/scratch/alice", "/out"), ("/scratch/alice/in", "/out/link")), 2, "is a symbolic link"),
        (volumes_of(("/scratch/alice", "/out"), ("/scratch/alice/in", "/out/link/passwd")), 2, "is a symbolic link"),
        (volumes_of(("/scratch/alice", "/out"), ("/scratch/alice/in", "/out/closed/x")), 2, "Permission denied"),
        (volumes_of(("/scratch/alice/file", "/out"), ("/scratch/alice/in", "/out/x")), 2, "it lies below volume"),
        ({"steps": (PlanStep("before", "link", "/etc", "/l"),)} | sites_of(("/scratch/site", "/l/x")), 7,
         "it lies below site step link /l, which is not a directory"),
        ({"steps": (PlanStep("before", "link", "/etc", "/l"),)} | sites_of(("/scratch/site", "/l")), 7, "has the same"),
        (volumes_of(("/scratch/alice", "/data/" + "x" * 256)), 2, "name of 256 bytes, more than 255, in the root: vol"),
        (volumes_of(("/scratch/alice", "/tmp/" + "\u00e9" * 128 + "/x")), 2, "name of 256 bytes, more than 255"),
        (volumes_of(("/scratch/alice", "/" + "\u00e9" * 128 + "/x")), 2, "name of 256 bytes, more than 255"),
        (volumes_of(("/scratch/alice", "/data" + "/\U0001f600" * 500)), 2, "path of more than 2048 bytes in the root"),
        (sites_of(("/scratch/site", "/" + "x" * 256)), 7, "name of 256 bytes, more than 255, in the root: site file s"),
        (sites_of(("/scratch/site", "/etc")), 7, "would hide what belongs to shifter-xc"),
        (sites_of(("/scratch/site", "/var")), 7, "would hide what belongs to shifter-xc"),
        (sites_of(("/scratch/site", "/proc")), 7, "would hide what belongs to shifter-xc"),
        (sites_of(("/scratch/site", "/opt/udi/bin")), 7, "would hide what belongs to shifter-xc"),
        (sites_of(("/scratch/site", "/dev/none")), 7, "(in shifter-xc's own /dev) does not exist"),
        (sites_of(("/scratch/site", "/etc/passwd/x")), 7, "is not a directory"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("way", WAYS)
def test_what_cannot_be_is_refused_in_one_line(
    furnished: Rig, changes: dict[str, Any], code: int, words: str, way: str
) -> None:
    alice = furnished.directory / "scratch/alice"
    if not (alice / "link").is_symlink():
        (alice / "link").symlink_to("/etc")
        (alice / "closed").mkdir(mode=0o700)
    report = faults.set_up(furnished, furnished.plan(**({"volumes": ()} | changes)), Fault(kernel=way)).report
    (alice / "link").unlink()
    (alice / "closed").rmdir()
    assert report
    assert (report.code, words in report.words) == (code, True), report.words


@pytest.mark.parametrize("way", WAYS)
def test_single_files(furnished: Rig, way: str) -> None:
    targets = ("/analysis/settings", "/usr/lib/new/settings", "/entry", "/tmp/settings")
    volumes = volumes_of(*(("/scratch/alice/file", target) for target in targets))
    steps = (PlanStep("after", "bind", "/scratch/site/file", "/etc/hosts"),)
    set_up(furnished, furnished.plan(**volumes, steps=steps, sites=()), way)
    for path in ("/analysis/settings", "/usr/lib/new/settings", "/entry", "/tmp/settings"):
        assert furnished.inside(f"cat {path}; echo more >> {path}").stdout.startswith("alice/file\n"), path
    assert (furnished.directory / "scratch/alice/file").read_text() == "alice/file\n" + "more\n" * 4
    assert furnished.inside("cat /etc/hosts").stdout == "site/file\n"


def _table(rig: Rig) -> list[str]:
    """Points and options of the node's own mounts."""
    fields = [line.split() for line in rig.node.run(["/bin/cat", "/proc/self/mountinfo"]).stdout.splitlines()]
    return [f"{line[4]} {line[5]}" for line in fields if not line[4].startswith(("/var/udi", "/var/run/udi"))]


@pytest.mark.parametrize("kernel", ["new", "without mount_setattr", "old"])
@pytest.mark.parametrize("kind", ["projects", "file"])
def test_a_user_who_renames_directories_meanwhile_changes_nothing_of_the_node(
    furnished: Rig, kind: str, kernel: str
) -> None:
    """The way to a mount in a volume is the user's: between two calls it may become a link to a mount of the node."""
    inside, away = furnished.directory / "scratch/alice/analysis", furnished.directory / "scratch/alice/away"
    (inside / "projects").mkdir(exist_ok=True)
    (inside / "file").touch()
    inner = (
        ("/scratch/alice/in", "/out/analysis/projects")
        if kind == "projects"
        else ("/scratch/alice/file", "/out/analysis/file")
    )
    plan = furnished.plan(sites=(), **volumes_of(("/scratch/alice", "/out"), inner))
    before = _table(furnished)
    calls = faults.set_up(furnished, plan, Fault(kernel=kernel)).calls
    assert furnished.tear_down().words == "clean"
    walked = max(number for number, name in enumerate(calls, 1) if name == "setgroups")
    for point in range(walked + 1, len(calls) + 1):
        with stopped(furnished, plan, point, kernel) as run:
            inside.rename(away)
            inside.symlink_to("/")
            try:
                report = run.go_on().report
            finally:
                inside.unlink()
                away.rename(inside)
        assert report
        assert report.code in (0, 2), report.words
        assert _table(furnished) == before, (point, calls[point - 1])
        assert furnished.tear_down().words == "clean"


@pytest.mark.parametrize("way", WAYS)
def test_marks_of_an_overlay_in_an_image_change_nothing(furnished: Rig, way: str) -> None:
    """An image made elsewhere may have whiteouts, opaque directories and redirects in it: they hide nothing of ours."""

    def change(tree: Path) -> None:
        for name in ("etc", "etc/app", "var", "opt"):
            os.setxattr(tree / name, "trusted.overlay.opaque", b"y")
        os.setxattr(tree / "var/lib", "trusted.overlay.redirect", b"/etc")
        for name in ("etc/passwd", "etc/group"):
            (tree / name).unlink()
            os.mknod(tree / name, 0o20000, os.makedev(0, 0))
        os.mknod(tree / "opt/udi", 0o20000, os.makedev(0, 0))
        os.mknod(tree / "var/spool", 0o20000, os.makedev(0, 0))

    plan = furnished.plan(**image_of(furnished, "a5" * 32, change), **sites_of(("/scratch/spool", "/var/spool/alps")))
    set_up(furnished, plan, way)
    assert furnished.inside("cat /etc/passwd").stdout.startswith("root:x:0:0::/root:/bin/sh\nalice:")
    assert furnished.inside("cat /var/spool/alps/placement /etc/os-release; ls /opt").stdout == (
        "spool/placement\nNAME=tiny\napp\nudi\n"
    )
    assert furnished.inside("ls /var/lib").stdout == "app\n"


@pytest.mark.parametrize("way", WAYS)
def test_the_image_has_no_say_in_what_is_shifter_xc_s(furnished: Rig, way: str) -> None:
    def change(tree: Path) -> None:
        (tree / "opt/udi/bin").mkdir(parents=True)
        (tree / "opt/udi/bin/udi-run").write_text("#!/bin/sh\necho image\n")
        (tree / "opt/udi/bin/evil").write_text("#!/bin/sh\n")
        (tree / "var/nodelist").mkdir()
        (tree / "etc/hosts").mkdir()
        (tree / "proc/x").mkdir()

    set_up(furnished, furnished.plan(**image_of(furnished, "a6" * 32, change)), way)
    assert furnished.inside("ls /opt/udi/bin; cat /var/nodelist").stdout.startswith("udi-run\nnid00012\n")
    assert furnished.inside("ls -d /proc/x /opt/udi/bin/evil").stdout == ""


@pytest.mark.parametrize("name", ["R@4.2", "foo~rc1", "with blank", "\u00fcml\u00e4ut", "a:b,c=d", "x\\y", "#"])
def test_harmless_names(furnished: Rig, name: str) -> None:
    def change(tree: Path) -> None:
        for directory in ("", "etc", "var", "opt"):
            (tree / directory / name).mkdir()
            (tree / directory / name / "inside").write_text("inside\n")

    image = image_of(furnished, f"{abs(hash(name)) % 10**8:08d}" * 8, change)
    for way in WAYS:
        set_up(furnished, furnished.plan(**image), way)
        for directory in ("", "/etc", "/var", "/opt"):
            assert furnished.inside(f"cat '{directory}/{name}/inside'").stdout == "inside\n", directory
        assert furnished.tear_down().words == "clean"


@pytest.mark.parametrize("name", [b"a\nb", b"\x01", b"\xff", b"-rf", b"\x7f", "\u0085".encode()])
@pytest.mark.parametrize("directory", ["", "etc", "opt"])
def test_names_that_are_refused(furnished: Rig, directory: str, name: bytes) -> None:
    def change(tree: Path) -> None:
        os.mkdir(os.path.join(os.fsencode(tree / directory), name))

    image = image_of(furnished, f"{abs(hash((name, directory))) % 10**8:08d}" * 8, change)
    for way in WAYS:
        report = faults.set_up(furnished, furnished.plan(**image), Fault(kernel=way)).report
        assert report
        assert (report.code, "invalid name" in report.words) == (5, True), report.words
