"""A root takes a mount anywhere: at any depth, over links and files of the image, in another mount, in any order.

Every case is tried on a kernel with overlay and on one without; both must show the same root.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.node import faults
from tests.node.faults import Fault
from tests.node.rig import ALICE, Rig, make_tree
from tests.node.test_together import stopped
from udiroot.plan import NodePlan, PlanMount, PlanStep

WAYS = ("new", "without overlay")
_NODE_PATHS = ("/scratch/mpi/lib", "/scratch/spool", "/scratch/site", "/scratch/site/inner")


@pytest.fixture
def clean(rig: Rig) -> Iterator[Rig]:
    """A node that is as before afterwards, with a few directories and files to mount."""
    scratch = rig.directory / "scratch"
    for name in ("mpi/lib", "spool/state", "site/inner", "alice/in", "alice/analysis/deep"):
        (scratch / name).mkdir(parents=True, exist_ok=True)
    for name in ("mpi/lib/libmpich.so", "spool/placement", "site/mark", "site/inner/mark", "site/file", "alice/file"):
        (scratch / name).write_text(f"{name}\n")
    for path in ("alice", "alice/in", "alice/analysis", "alice/analysis/deep", "alice/file"):
        os.chown(scratch / path, ALICE.uid, ALICE.gid)
    before = rig.picture()
    yield rig
    rig.tear_down()
    assert before.difference(rig.picture()) == []


def _image(rig: Rig, name: str, change: Callable[[Path], None]) -> dict[str, Any]:
    """An image that is the tiny one, changed; what a plan says of it."""
    tree = rig.directory / f"trees/{name}"
    path = f"/lus/udi/images/{name}.squashfs"
    if not tree.exists():
        make_tree(tree)
        change(tree)
        rig.make_image("squashfs", name, tree)
    return {"image_path": path}


def _set_up(rig: Rig, plan: NodePlan, way: str) -> None:
    done = faults.set_up(rig, plan, Fault(kernel=way))
    assert done.report, done.trace
    assert done.report.ok, done.report.words


def _sites(*pairs: tuple[str, str]) -> dict[str, Any]:
    return {"sites": tuple(PlanMount(source, target, False) for source, target in pairs)}


def _volumes(*pairs: tuple[str, str]) -> dict[str, Any]:
    return {"volumes": tuple(PlanMount(source, target, False) for source, target in pairs)}


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
def test_a_site_file_system_anywhere(clean: Rig, target: str, way: str) -> None:
    _set_up(clean, clean.plan(**_sites(("/scratch/spool", target))), way)
    assert clean.inside(f"cat '{target}/placement'").stdout == "spool/placement\n"
    assert "Read-only file system" in clean.inside(f"mkdir -p '{target}x' 2>&1 || :").stdout or target[:4] in (
        "/tmp",
        "/var",
    )
    assert clean.inside("cat /etc/os-release /etc/app/conf").stdout == "NAME=tiny\nx=1\n"
    assert clean.inside("ls -d /usr/lib /opt/app /var/lib/app /bin/sh").returncode == 0


@pytest.mark.parametrize("way", WAYS)
def test_all_of_them_at_once_and_in_any_order(clean: Rig, way: str) -> None:
    for targets in (TARGETS, TARGETS[::-1]):
        _set_up(clean, clean.plan(**_sites(*(("/scratch/spool", target) for target in targets))), way)
        for target in targets:
            assert clean.inside(f"cat '{target}/placement'").stdout == "spool/placement\n", target
        assert clean.tear_down().words == "clean"


def _view(rig: Rig) -> list[str]:
    """Names, types, owners and modes of the root, as its user finds them, without what the kernel makes."""
    script = (
        "find / -path /proc -prune -o -path /sys -prune -o -path /dev -prune -o -print 2>/dev/null | sort |"
        " while read -r name; do stat -c '%n %A %u %g %N' \"$name\"; done"
    )
    done = rig.node.run(["/bin/busybox", "chroot", "/var/udi", "/bin/busybox", "sh", "-c", script])
    return done.stdout.splitlines()


def test_both_ways_show_the_same_root(clean: Rig) -> None:
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

    plan = clean.plan(
        **_image(clean, "a0" * 32, change),
        **_sites(*(("/scratch/spool", target) for target in (*TARGETS, "/etc/deep/new", "/lib64/x", "/var/mail/y"))),
    )
    views = []
    for way in (*WAYS, "old", "with a simple overlay"):
        _set_up(clean, plan, way)
        views.append(_view(clean))
        assert clean.tear_down().words == "clean"
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
def test_a_link_of_the_image_where_a_mount_belongs_is_replaced(clean: Rig, link: str, way: str) -> None:
    def change(tree: Path) -> None:
        (tree / "scratch").symlink_to(link)
        shutil.rmtree(tree / "home")
        (tree / "home").symlink_to(link)

    image = _image(clean, f"{abs(hash(link)) % 10**8:08d}" * 8, change)
    plan = clean.plan(**image, **_sites(("/scratch/spool", "/scratch"), ("/scratch/site", "/home/site")))
    _set_up(clean, plan, way)
    assert clean.inside("cat /scratch/placement /home/site/mark").stdout == "spool/placement\nsite/mark\n"
    assert clean.inside("cat /etc/passwd").stdout.startswith("root:x:0:0::/root:/bin/sh\nalice:")
    assert clean.inside("ls /etc/placement /opt/udi/placement /proc/placement /dev/placement /placement").stdout == ""
    assert clean.inside("/opt/udi/bin/udi-run cat /var/nodelist").stdout.startswith("nid00012\n")


@pytest.mark.parametrize("way", WAYS)
def test_a_live_link_above_a_mount_still_leads_to_the_image(clean: Rig, way: str) -> None:
    """`/lib -> usr/lib`: what is mounted below the one is below the other, and nothing of the image is hidden."""

    def change(tree: Path) -> None:
        (tree / "usr/lib/ld.so").write_text("loader\n")

    plan = clean.plan(**_image(clean, "a1" * 32, change), **_sites(("/scratch/mpi/lib", "/lib/mpich")))
    _set_up(clean, plan, way)
    assert clean.inside("cat /lib/mpich/libmpich.so /usr/lib/mpich/libmpich.so").stdout == "mpi/lib/libmpich.so\n" * 2
    assert clean.inside("cat /lib/ld.so /usr/lib/ld.so; ls -d /lib").stdout == "loader\nloader\n/lib\n"


@pytest.mark.parametrize("way", WAYS)
def test_a_volume_that_hides_what_the_image_has_is_told(clean: Rig, way: str) -> None:
    """Also behind a link; nothing is said of an empty directory, of none, of a file, and of what lies in a volume."""

    def change(tree: Path) -> None:
        (tree / "data/kept").write_text("kept\n")
        (tree / "usr/share/doc").mkdir(parents=True)
        (tree / "alias").symlink_to("usr")

    source = "/scratch/alice/in"
    targets = ("/data", "/alias/share", "/analysis", "/new/place", "/srv")
    volumes = [(source, target) for target in targets] + [("/scratch/alice/file", "/entry")]
    volumes += [("/scratch/alice", "/out"), (source, "/out/analysis")]
    plan = clean.plan(**_image(clean, "c7" * 32, change), **_volumes(*volumes))
    report = faults.set_up(clean, plan, Fault(kernel=way)).report
    assert report and report.ok and report.warns, report
    assert report.left == ("hides=2",)
    told = {f"volume {source}:{target} hides what the image has there" for target in targets[:2]}
    assert set(report.words.split("; ")) == told


@pytest.mark.parametrize("way", WAYS)
def test_a_mount_in_another_one_below_a_live_link(clean: Rig, way: str) -> None:
    """`/var/run -> /run`: the inner one goes to where the outer one is, and the link stays."""
    sites = _sites(
        ("/scratch/site/inner", "/lib/n/inner"), ("/scratch/site", "/lib/n"), ("/scratch/spool", "/var/run/n")
    )
    _set_up(clean, clean.plan(**sites, **_volumes(("/scratch/alice/in", "/var/run/n/state"))), way)
    assert clean.inside("cat /usr/lib/n/mark /usr/lib/n/inner/mark").stdout == "site/mark\nsite/inner/mark\n"
    assert clean.inside("cat /run/n/placement; ls -d /lib /var/run").stdout == "spool/placement\n/lib\n/var/run\n"
    assert clean.inside("echo x > /run/n/state/x; cat /var/run/n/state/x; rm /run/n/state/x").stdout == "x\n"
    assert clean.inside("test -L /lib && test -L /var/run").returncode == 0


@pytest.mark.parametrize("way", WAYS)
def test_two_links_to_one_directory_do_not_put_two_mounts_at_one_place(clean: Rig, way: str) -> None:
    def change(tree: Path) -> None:
        (tree / "one").symlink_to("data")
        (tree / "two").symlink_to("data")
        (tree / "data/kept").write_text("kept\n")

    sites = _sites(("/scratch/spool", "/one/x"), ("/scratch/site", "/two/x"), ("/scratch/mpi", "/data/x"))
    _set_up(clean, clean.plan(**_image(clean, "a2" * 32, change), **sites), way)
    shown = clean.inside("cat /one/x/placement /two/x/mark /data/x/lib/libmpich.so").stdout
    assert shown == "spool/placement\nsite/mark\nmpi/lib/libmpich.so\n"
    assert clean.inside("cat /one/kept /two/kept /data/kept").stdout == "kept\n" * 3


@pytest.mark.parametrize("way", WAYS)
def test_a_link_to_another_mount_is_not_a_way_into_it(clean: Rig, way: str) -> None:
    def change(tree: Path) -> None:
        (tree / "alias").symlink_to("data")

    sites = _sites(("/scratch/site", "/data"), ("/scratch/spool", "/alias/below"))
    _set_up(clean, clean.plan(**_image(clean, "a3" * 32, change), **sites), way)
    assert clean.inside("cat /data/mark /alias/below/placement").stdout == "site/mark\nspool/placement\n"
    assert not (clean.directory / "scratch/site/below").exists()


@pytest.mark.parametrize("way", WAYS)
def test_files_and_loops_where_a_mount_belongs(clean: Rig, way: str) -> None:
    def change(tree: Path) -> None:
        (tree / "plain").write_text("x")
        (tree / "usr/plain").write_text("x")
        (tree / "loop").symlink_to("loop")
        (tree / "a").symlink_to("b")
        (tree / "b").symlink_to("a")
        os.mknod(tree / "usr/null", 0o20666, os.makedev(1, 3))
        os.mkfifo(tree / "usr/fifo")

    targets = ("/plain", "/usr/plain/deeper", "/loop", "/a/x", "/usr/null/y", "/usr/fifo")
    sites = _sites(*(("/scratch/spool", target) for target in targets))
    _set_up(clean, clean.plan(**_image(clean, "a4" * 32, change), **sites), way)
    for target in targets:
        assert clean.inside(f"cat {target}/placement").stdout == "spool/placement\n", target


@pytest.mark.parametrize("way", WAYS)
def test_a_mount_in_another_mount(clean: Rig, way: str) -> None:
    """An inner one is mounted on what the outer one has, whichever is declared first."""
    sites = _sites(("/scratch/spool", "/opt/cray/inner"), ("/scratch/site", "/opt/cray"))
    _set_up(clean, clean.plan(**sites, volumes=(PlanMount("/scratch/alice/in", "/opt/cray/inner/state", True),)), way)
    shown = clean.inside("cat /opt/cray/mark /opt/cray/inner/placement; ls /opt/cray/inner").stdout
    assert shown == "site/mark\nspool/placement\nplacement\nstate\n"


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        (_sites(("/scratch/site", "/opt/cray"), ("/scratch/spool", "/opt/cray/none")), 7,
         "site file system /scratch/spool: '/opt/cray/none' (in site file system /scratch/site) does not exist"),
        (_sites(("/scratch/site", "/opt/cray"), ("/scratch/spool", "/opt/cray/mark")), 7, "is not a directory"),
        (_volumes(("/scratch/alice", "/out"), ("/scratch/alice/in", "/out/none")), 2, "does not exist"),
        (_volumes(("/scratch/alice", "/out"), ("/scratch/alice/in", "/out/link")), 2, "is a symbolic link"),
        (_volumes(("/scratch/alice", "/out"), ("/scratch/alice/in", "/out/link/passwd")), 2, "is a symbolic link"),
        (_volumes(("/scratch/alice", "/out"), ("/scratch/alice/in", "/out/closed/x")), 2, "Permission denied"),
        (_volumes(("/scratch/alice/file", "/out"), ("/scratch/alice/in", "/out/x")), 2, "it lies below volume"),
        ({"steps": (PlanStep("before", "link", "/etc", "/l"),)} | _sites(("/scratch/site", "/l/x")), 7,
         "it lies below site step link /l, which is not a directory"),
        ({"steps": (PlanStep("before", "link", "/etc", "/l"),)} | _sites(("/scratch/site", "/l")), 7, "has the same"),
        (_volumes(("/scratch/alice", "/data/" + "x" * 256)), 2, "name of 256 bytes, more than 255, in the root: vol"),
        (_volumes(("/scratch/alice", "/tmp/" + "\u00e9" * 128 + "/x")), 2, "name of 256 bytes, more than 255"),
        (_volumes(("/scratch/alice", "/" + "\u00e9" * 128 + "/x")), 2, "name of 256 bytes, more than 255"),
        (_volumes(("/scratch/alice", "/data" + "/\U0001f600" * 500)), 2, "path of more than 2048 bytes in the root"),
        (_sites(("/scratch/site", "/" + "x" * 256)), 7, "name of 256 bytes, more than 255, in the root: site file s"),
        (_sites(("/scratch/site", "/etc")), 7, "would hide what belongs to shifter-xc"),
        (_sites(("/scratch/site", "/var")), 7, "would hide what belongs to shifter-xc"),
        (_sites(("/scratch/site", "/proc")), 7, "would hide what belongs to shifter-xc"),
        (_sites(("/scratch/site", "/opt/udi/bin")), 7, "would hide what belongs to shifter-xc"),
        (_sites(("/scratch/site", "/dev/none")), 7, "(in shifter-xc's own /dev) does not exist"),
        (_sites(("/scratch/site", "/etc/passwd/x")), 7, "is not a directory"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("way", WAYS)
def test_what_cannot_be_is_refused_in_one_line(
    clean: Rig, changes: dict[str, Any], code: int, words: str, way: str
) -> None:
    alice = clean.directory / "scratch/alice"
    if not (alice / "link").is_symlink():
        (alice / "link").symlink_to("/etc")
        (alice / "closed").mkdir(mode=0o700)
    report = faults.set_up(clean, clean.plan(**({"volumes": ()} | changes)), Fault(kernel=way)).report
    (alice / "link").unlink()
    (alice / "closed").rmdir()
    assert report
    assert (report.code, words in report.words) == (code, True), report.words


@pytest.mark.parametrize("way", WAYS)
def test_single_files(clean: Rig, way: str) -> None:
    volumes = _volumes(("/scratch/alice/file", "/analysis/settings"), ("/scratch/alice/file", "/usr/lib/new/settings"),
                       ("/scratch/alice/file", "/entry"), ("/scratch/alice/file", "/tmp/settings"))  # fmt: skip
    steps = (PlanStep("after", "bind", "/scratch/site/file", "/etc/hosts"),)
    _set_up(clean, clean.plan(**volumes, steps=steps, sites=()), way)
    for path in ("/analysis/settings", "/usr/lib/new/settings", "/entry", "/tmp/settings"):
        assert clean.inside(f"cat {path}; echo more >> {path}").stdout.startswith("alice/file\n"), path
    assert (clean.directory / "scratch/alice/file").read_text() == "alice/file\n" + "more\n" * 4
    assert clean.inside("cat /etc/hosts").stdout == "site/file\n"


def _table(rig: Rig) -> list[str]:
    """Points and options of the node's own mounts."""
    fields = [line.split() for line in rig.node.run(["/bin/cat", "/proc/self/mountinfo"]).stdout.splitlines()]
    return [f"{line[4]} {line[5]}" for line in fields if not line[4].startswith(("/var/udi", "/var/run/udi"))]


@pytest.mark.parametrize("kernel", ["new", "without mount_setattr", "old"])
@pytest.mark.parametrize("kind", ["projects", "file"])
def test_a_user_who_renames_directories_meanwhile_changes_nothing_of_the_node(
    clean: Rig, kind: str, kernel: str
) -> None:
    """The way to a mount in a volume is the user's: between two calls it may become a link to a mount of the node."""
    inside, away = clean.directory / "scratch/alice/analysis", clean.directory / "scratch/alice/away"
    (inside / "projects").mkdir(exist_ok=True)
    (inside / "file").touch()
    inner = (
        ("/scratch/alice/in", "/out/analysis/projects")
        if kind == "projects"
        else ("/scratch/alice/file", "/out/analysis/file")
    )
    plan = clean.plan(sites=(), **_volumes(("/scratch/alice", "/out"), inner))
    before = _table(clean)
    calls = faults.set_up(clean, plan, Fault(kernel=kernel)).calls
    assert clean.tear_down().words == "clean"
    walked = max(number for number, name in enumerate(calls, 1) if name == "setgroups")
    for point in range(walked + 1, len(calls) + 1):
        with stopped(clean, plan, point, kernel) as run:
            inside.rename(away)
            inside.symlink_to("/")
            try:
                report = run.go_on().report
            finally:
                inside.unlink()
                away.rename(inside)
        assert report
        assert report.code in (0, 2), report.words
        assert _table(clean) == before, (point, calls[point - 1])
        assert clean.tear_down().words == "clean"


@pytest.mark.parametrize("way", WAYS)
def test_marks_of_an_overlay_in_an_image_change_nothing(clean: Rig, way: str) -> None:
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

    plan = clean.plan(**_image(clean, "a5" * 32, change), **_sites(("/scratch/spool", "/var/spool/alps")))
    _set_up(clean, plan, way)
    assert clean.inside("cat /etc/passwd").stdout.startswith("root:x:0:0::/root:/bin/sh\nalice:")
    assert clean.inside("cat /var/spool/alps/placement /etc/os-release; ls /opt").stdout == (
        "spool/placement\nNAME=tiny\napp\nudi\n"
    )
    assert clean.inside("ls /var/lib").stdout == "app\n"


@pytest.mark.parametrize("way", WAYS)
def test_the_image_has_no_say_in_what_is_shifter_xc_s(clean: Rig, way: str) -> None:
    def change(tree: Path) -> None:
        (tree / "opt/udi/bin").mkdir(parents=True)
        (tree / "opt/udi/bin/udi-run").write_text("#!/bin/sh\necho image\n")
        (tree / "opt/udi/bin/evil").write_text("#!/bin/sh\n")
        (tree / "var/nodelist").mkdir()
        (tree / "etc/hosts").mkdir()
        (tree / "proc/x").mkdir()

    _set_up(clean, clean.plan(**_image(clean, "a6" * 32, change)), way)
    assert clean.inside("ls /opt/udi/bin; cat /var/nodelist").stdout.startswith("udi-run\nnid00012\n")
    assert clean.inside("ls -d /proc/x /opt/udi/bin/evil").stdout == ""


def test_a_directory_with_very_many_entries(clean: Rig) -> None:
    """An overlay takes it as it is; binds have a limit, which is the image's to keep."""

    def change(tree: Path) -> None:
        for number in range(9000):
            (tree / f"etc/{number}").touch()

    image = _image(clean, "a7" * 32, change)
    _set_up(clean, clean.plan(**image), "new")
    assert clean.inside("ls /etc | grep -c .").stdout == "9006\n"
    assert clean.tear_down().ok
    refused = faults.set_up(clean, clean.plan(**image), Fault(kernel="without overlay")).report
    assert refused
    assert (refused.code, "/etc of the image has too many entries" in refused.words) == (5, True), refused.words


def test_a_crowded_top_level(clean: Rig) -> None:
    def change(tree: Path) -> None:
        for number in range(3000):
            (tree / f"f{number}").write_text(str(number))
        (tree / "lib64").symlink_to("usr/lib")

    image = _image(clean, "a8" * 32, change)
    views = []
    for way in WAYS:
        sites = _sites(
            ("/scratch/spool", "/var/spool/alps"), ("/scratch/site", "/opt/udi2/x"), ("/scratch", "/scratch")
        )
        _set_up(clean, clean.plan(**image, **sites), way)
        assert (
            clean.inside("cat /f2999 /var/spool/alps/placement /opt/udi2/x/mark").stdout
            == "2999spool/placement\nsite/mark\n"
        )
        assert "Read-only" in clean.inside("echo > /x").stderr
        views.append(_view(clean))
        assert clean.tear_down().words == "clean"
    assert views[0] == views[1]


@pytest.mark.parametrize("way", WAYS)
def test_hundreds_of_places(clean: Rig, way: str) -> None:
    targets = [f"/site/{number % 7}/{number}/deep" for number in range(300)]
    _set_up(clean, clean.plan(**_sites(*(("/scratch/spool", target) for target in targets))), way)
    assert clean.inside("cat /site/*/*/deep/placement | grep -c .").stdout == "300\n"


def _links(tree: Path) -> None:
    for number in range(400):
        (tree / f"l{number}").symlink_to(("etc", "/opt/udi", "scratch", "usr")[number % 4])


@pytest.mark.parametrize("way", [*WAYS, "old"])
def test_the_time_of_hundreds_of_places_grows_with_their_number_only(clean: Rig, way: str) -> None:
    """Whatever links the image has where they belong."""
    image = _image(clean, "a9" * 32, _links)
    needed = []
    for count in (50, 400):
        sites = _sites(*(("/scratch/spool", f"/l{number}/deep") for number in range(count)))
        report = faults.set_up(clean, clean.plan(**image, **sites), Fault(kernel=way)).report
        assert report
        assert report.ok, report.words
        needed.append(report.milliseconds)
        shown = clean.inside(f"n=0; while [ $n -lt {count} ]; do cat /l$n/deep/placement; n=$((n+1)); done | grep -c .")
        assert shown.stdout == f"{count}\n"
        assert clean.tear_down().words == "clean"
    assert needed[1] < 1500, needed


def test_a_link_to_a_directory_deeper_than_a_path_may_be(clean: Rig) -> None:
    def change(tree: Path) -> None:
        deep = tree / "/".join(["deep" * 50] * 8)
        deep.mkdir(parents=True)
        (tree / "short").symlink_to(deep.relative_to(tree))

    plan = clean.plan(**_image(clean, "aa" * 32, change), **_sites(("/scratch/spool", "/short/x")))
    for way in WAYS:
        _set_up(clean, plan, way)
        assert clean.inside("cat /short/x/placement").stdout == "spool/placement\n"
        assert clean.tear_down().words == "clean"


@pytest.mark.parametrize("name", ["R@4.2", "foo~rc1", "with blank", "\u00fcml\u00e4ut", "a:b,c=d", "x\\y", "#"])
def test_harmless_names(clean: Rig, name: str) -> None:
    def change(tree: Path) -> None:
        for directory in ("", "etc", "var", "opt"):
            (tree / directory / name).mkdir()
            (tree / directory / name / "inside").write_text("inside\n")

    image = _image(clean, f"{abs(hash(name)) % 10**8:08d}" * 8, change)
    for way in WAYS:
        _set_up(clean, clean.plan(**image), way)
        for directory in ("", "/etc", "/var", "/opt"):
            assert clean.inside(f"cat '{directory}/{name}/inside'").stdout == "inside\n", directory
        assert clean.tear_down().words == "clean"


@pytest.mark.parametrize("name", [b"a\nb", b"\x01", b"\xff", b"-rf", b"\x7f", "\u0085".encode()])
@pytest.mark.parametrize("directory", ["", "etc", "opt"])
def test_names_that_are_refused(clean: Rig, directory: str, name: bytes) -> None:
    def change(tree: Path) -> None:
        os.mkdir(os.path.join(os.fsencode(tree / directory), name))

    image = _image(clean, f"{abs(hash((name, directory))) % 10**8:08d}" * 8, change)
    for way in WAYS:
        report = faults.set_up(clean, clean.plan(**image), Fault(kernel=way)).report
        assert report
        assert (report.code, "invalid name" in report.words) == (5, True), report.words
