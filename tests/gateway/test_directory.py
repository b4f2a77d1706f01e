"""Unpacked trees in the store, and image files that their publishers want kept: made, refused, removed, transferred."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.archives import BASE, Entry, directory, file, hardlink, make_archive, symlink
from tests.gateway.service import ACCOUNT, ANNA, BERT, NOBODY, Service, directory_for_all
from tests.gateway.support import needs_root
from tests.gateway.test_systems import Site
from tests.gateway.test_systems import site as site

pytestmark = needs_root
_OF_BASE = sum(len(entry.data) for entry in BASE)
_OPEN = 'user_formats = ["directory"]\n'


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """A service whose users may ask for unpacked trees."""
    with directory_for_all("udi-trees-") as top, Service(top, _OPEN) as running:
        yield running


def tree_of(service: Service, image_id: str) -> Path:
    return service.store / f"images/{image_id}.directory/tree"


def archive(service: Service, name: str, entries: list[Entry]) -> tuple[str, str]:
    path = service.directory / f"{name}.tar"
    image_id = make_archive(path, [[*BASE, *entries]], tags=[f"{name}:1"])
    path.chmod(0o644)
    return str(path), image_id


def pulled(service: Service, name: str, entries: list[Entry]) -> Path:
    path, image_id = archive(service, name, entries)
    answer = service.ask(ANNA, "pull", "--format", "directory", f"docker-archive:{path}")
    assert (answer["id"], answer["format"]) == (image_id, "directory")
    return tree_of(service, image_id)


def test_what_a_tree_has(service: Service) -> None:
    deep = "/".join("d" * 200 for _ in range(15))
    tree = pulled(
        service,
        "tree",
        [
            directory("tmp", 0o1777),
            file("bin/su", b"x" * 5000, mode=0o4755),
            file("bin/private", b"secret", mode=0o600),
            file("bin/open", b"", mode=0o666),
            hardlink("bin/again", "bin/su"),
            symlink("bin/out", "/etc/shadow"),
            symlink("up", ".."),
            directory("dark", 0o000),
            file("dark/inside", b"dark", mode=0o000),
            file("zeros", bytes(3 << 20)),
            file(f"{deep}/last", b"deep"),
        ],
    )
    status = {
        name: (tree / name).lstat()
        for name in ("bin/su", "bin/private", "bin/open", "bin/again", "tmp", "dark", "dark/inside", "zeros")
    }
    assert {each.st_uid for each in status.values()} == {ACCOUNT}
    modes = {name: stat.S_IMODE(each.st_mode) for name, each in status.items()}
    assert modes == {
        "bin/su": 0o755,
        "bin/private": 0o600,
        "bin/open": 0o644,
        "bin/again": 0o755,
        "tmp": 0o1755,
        "dark": 0o700,
        "dark/inside": 0o600,
        "zeros": 0o644,
    }
    assert status["bin/su"].st_ino == status["bin/again"].st_ino
    assert status["zeros"].st_blocks * 512 < 1 << 20
    assert os.readlink(tree / "bin/out") == "/etc/shadow"
    assert os.readlink(tree / "up") == ".."
    assert (tree / deep / "last").read_bytes() == b"deep"
    assert stat.S_IMODE(tree.parent.stat().st_mode) == 0o700
    assert os.listdir(tree.parent) == ["tree"]


def test_facts_lists_and_removal(service: Service) -> None:
    tree = pulled(service, "facts", [file("a", b"12345"), file("b", b"678")])
    [row] = [row for row in service.ask(ANNA, "images")["images"] if row["reference"] == "facts:1"]
    assert (row["format"], row["kind"], row["size"]) == ("directory", "docker", 8 + _OF_BASE)
    facts = service.ask(ANNA, "inspect", "facts:1")["facts"]
    assert (facts["format"], facts["kind"]) == ("directory", "docker")
    assert service.ask(ANNA, "lookup", "facts:1")["kind"] == "docker"
    assert service.udi(BERT, "lookup", "facts:1").returncode == 3
    assert service.udi(ANNA, "rm", "facts:1").stdout == "removed facts:1 (docker)\n"
    assert not tree.parent.exists()
    assert not [name for name in service.files() if name.startswith(".new")]


def test_the_same_content_has_the_same_facts(service: Service) -> None:
    """Whatever was there before, and however often it is made."""
    found = []
    for _ in range(2):
        pulled(service, "again", [file("a", b"12345"), symlink("b", "a")])
        found.append(service.ask(ANNA, "inspect", "again:1")["facts"])
        service.ask(ANNA, "rm", "again:1")
    assert found[0] == found[1]


def test_one_that_is_there_as_a_file(service: Service) -> None:
    path, image_id = archive(service, "there", [file("a", b"1")])
    service.ask(ANNA, "pull", f"docker-archive:{path}")
    done = service.udi(BERT, "pull", "--format", "directory", f"docker-archive:{path}")
    assert done.returncode == 0
    assert "udi: the image is in the store already, in the format squashfs\n" in done.stderr
    assert not tree_of(service, image_id).exists()


def test_who_may_ask_for_which_format(service: Service) -> None:
    path, image_id = archive(service, "format", [file("a", b"format")])
    refused = service.udi(ANNA, "pull", "--format", "ext4", f"docker-archive:{path}")
    assert refused.returncode == 4
    assert refused.stderr.startswith("udi: this site makes no images of the format ext4 for its users\n")
    refused = service.udi(ANNA, "pull", "--format", "tar", f"docker-archive:{path}")
    assert refused.returncode == 2
    assert refused.stderr.startswith("udi: unknown image format 'tar'\n")
    assert not [name for name in service.files() if image_id in name]


def test_a_conversion_that_is_killed_leaves_nothing(service: Service) -> None:
    path, image_id = archive(service, "killed", [file(f"d{n // 100}/{n}", b"x" * 2000) for n in range(20_000)])
    process = subprocess.Popen(
        service.command("pull", "--format", "directory", f"docker-archive:{path}"),
        user=ANNA, group=ANNA, extra_groups=[], stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    end = time.monotonic() + 20
    while not list(service.store.glob("images/.new-*/tree/d1")) and time.monotonic() < end:
        time.sleep(0.005)
    of_this_store = f"directory_fill {service.store}/"  # other services of the account may be filling theirs
    subprocess.run(["pkill", "-KILL", "-u", str(ACCOUNT), "-f", of_this_store], check=True)
    _, error = process.communicate(timeout=30)
    assert process.returncode != 0
    assert error.splitlines()[-1].startswith("udi: ") or "hint" in error.splitlines()[-1]
    assert not [name for name in service.files() if name.startswith(".new") or image_id in name]


def test_what_a_killed_service_left_is_removed_by_the_next(service: Service) -> None:
    grave = service.store / "images/.new-000000000000000000000000"
    (grave / "tree/a/b").mkdir(parents=True)
    (grave / "tree/a/link").symlink_to("/etc")
    subprocess.run(["chown", "-hR", f"{ACCOUNT}:{ACCOUNT}", grave], check=True)
    service.stop(signal.SIGKILL)
    service.start()
    assert not grave.exists()
    assert Path("/etc/passwd").exists()


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """The store's file system has fewer inodes than the tree has files."""
    with directory_for_all("udi-full-") as top:
        running = Service(top, _OPEN)
        running.store.mkdir()
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size=64M,nr_inodes=400,uid={ACCOUNT},mode=755", "udi-full", running.store],
            check=True,
        )
        try:
            with running:
                path, image_id = archive(running, "full", [file(f"{n}", b"x") for n in range(1000)])
                done = running.udi(ANNA, "pull", "--format", "directory", f"docker-archive:{path}")
                assert done.returncode == 6
                assert "no space left on device" in done.stderr
                assert not [name for name in running.files() if name.startswith(".new") or image_id in name]
        finally:
            subprocess.run(["umount", running.store], check=True)


def test_expiry_by_the_bytes_of_a_tree(service: Service) -> None:
    tree = pulled(service, "old", [file("a", b"x" * 100_000)])
    old = time.time() - 40 * 86400
    image_id = tree.parent.name.partition(".")[0]
    os.utime(service.store / f"images/{image_id}.json", (old, old))
    for path in (service.store / "refs").glob("old*"):
        ref = json.loads(path.read_text())
        path.write_text(json.dumps({**ref, "created": int(old), "used": int(old)}))
    service.config.write_text(service.config.read_text().replace("[gateway]", "[gateway]\nkeep_days = 30", 1))
    words = ["-c", "from gateway.service.cli import main; main()", "--config", str(service.config), "expire", "--json"]
    dropped = ["setpriv", f"--reuid={ACCOUNT}", f"--regid={ACCOUNT}", "--clear-groups"]
    done = subprocess.run([*dropped, service.command()[0], *words], capture_output=True, text=True, check=True)
    assert [(each["id"], each["size"]) for each in json.loads(done.stdout)["expired"]] == [
        (image_id, 100_000 + _OF_BASE)
    ]
    assert not tree.parent.exists()


def test_transferred_to_further_systems(site: Site) -> None:
    path, image_id = site.image("moving")
    answer = site.ask(NOBODY, "pull", "--public", "--format", "directory", f"docker-archive:{path}")
    site.transfer()
    for store in (site.near, site.far):
        there = store / f"images/{image_id}.directory/tree"
        here = site.store / f"images/{image_id}.directory/tree"
        assert subprocess.run(["diff", "-r", "--no-dereference", here, there], check=False).returncode == 0
        assert (there / "data").stat().st_mode == (here / "data").stat().st_mode
        assert stat.S_IMODE(there.parent.stat().st_mode) == 0o700
    assert answer["format"] == "directory"
    site.ask(NOBODY, "rm", "moving:1")
    site.transfer()
    for store in (site.near, site.far):
        assert not [name for name in os.listdir(store / "images") if name.startswith((image_id, ".new"))]


# -- kept as they are -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(service: Service) -> Path:
    """A squashfs of lzo with blocks of 64 KiB, as none of ours is, and one with a device."""
    tree = service.directory / "own-tree"
    for name in ("etc", "bin"):
        (tree / name).mkdir(parents=True)
    (tree / "etc/os-release").write_text("NAME=kept\n")
    (tree / "bin/program").write_bytes(os.urandom(70_000))
    options = ["-quiet", "-no-progress", "-comp", "lzo", "-b", "64K", "-all-root"]
    subprocess.run(["mksquashfs", tree, service.directory / "own.squashfs", *options], check=True, stdout=-3)
    os.mknod(tree / "bin/device", 0o60660, os.makedev(8, 0))
    subprocess.run(["mksquashfs", tree, service.directory / "device.squashfs", *options], check=True, stdout=-3)
    for name in ("own", "device"):
        (service.directory / f"{name}.squashfs").chmod(0o644)
    return service.directory


def test_a_publisher_s_file_is_kept_byte_for_byte(service: Service, made: Path) -> None:
    answer = service.ask(NOBODY, "pull", "--public", "--keep", f"squashfs:{made}/own.squashfs", "own:1")
    stored = service.store / f"images/{answer['id']}.squashfs"
    assert stored.read_bytes() == (made / "own.squashfs").read_bytes()
    facts = service.ask(ANNA, "inspect", "own:1")["facts"]
    assert (facts["kind"], facts["format"], facts["size"]) == ("squashfs", "squashfs", stored.stat().st_size)
    service.ask(NOBODY, "rm", "own:1")
    anew = service.ask(NOBODY, "pull", "--public", f"squashfs:{made}/own.squashfs", "own:1")
    assert anew["id"] == answer["id"]
    assert stored.read_bytes() != (made / "own.squashfs").read_bytes()
    service.ask(NOBODY, "rm", "own:1")


@pytest.mark.parametrize(
    ("uid", "source", "code", "message"),
    [
        (ANNA, "squashfs:{made}/own.squashfs", 4, "only publishers may have a file kept as it is"),
        (NOBODY, "squashfs:{made}/device.squashfs", 5, "the file system has device nodes"),
        (NOBODY, "rootfs-archive:{made}/own.squashfs", 2, "a source of the kind rootfs-archive cannot be kept"),
        (NOBODY, "docker-archive:{made}/own.squashfs", 2, "is no image file"),
    ],
)
def test_what_is_not_kept(service: Service, made: Path, uid: int, source: str, code: int, message: str) -> None:
    before = service.files()
    done = service.udi(uid, "pull", "--keep", source.format(made=made), "kept:1")
    assert done.returncode == code, done.stderr
    assert message in done.stderr.splitlines()[-1] or message in done.stderr.splitlines()[-2]
    assert service.files() == before
