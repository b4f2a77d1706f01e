"""Directories with tens of thousands of names: packed in time that is linear in them, and right on every reader."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.gateway.archives import BASE, Entry, another_name, directory, file, hardlink, symlink
from tests.gateway.squashfs_listings import listings_agree
from tests.gateway.support import convert_layers, mounted, needs_root, tree_of, without_root


def _odd_tree() -> list[Entry]:
    """Everything that an entry may be, in directories that are large, in large directories and next to them."""
    one = file("many/one", b"1" * 5000, mode=0o4755, uid=70_000, xattrs={"user.a": b"1"})
    return [
        *BASE,
        directory("many", mode=0o1777, uid=5, gid=6, xattrs={"user.of-directory": b"2"}),
        one,
        another_name("many/two", one),
        another_name("elsewhere/three", one),
        *(file(f"many/{number:05}-{'n' * (number % 200)}", b"%d" % number * (number % 30)) for number in range(700)),
        *(symlink(f"many/link{number}", f"{number:05}") for number in range(50)),
        *(directory(f"many/sub{number}", mode=0o700 + number) for number in range(40)),
        *(file(f"many/sub7/{number}", b"x") for number in range(333)),
        *(file(f"many/sub7/0d/deep/{number}", b"y") for number in range(150)),
        directory("many/sub8/empty"),
        file("many/sub9/a/b/c/d"),
        *(file(f"{number}-in-root") for number in range(120)),
        hardlink("z", "many/sub7/5"),
        file(b"many/\xff\xfe", b"not text"),
    ]


@needs_root
@pytest.mark.parametrize("compression", ["gzip:1", "gzip:6", "zstd:3", "xz"])
def test_every_compression_makes_the_same_tree(tmp_path: Path, compression: str) -> None:
    """To the kernel, and to unsquashfs; the same as a packer's. A directory has two links, and one for each below."""
    with mounted(convert_layers(tmp_path, [_odd_tree()], compression="lzo")) as root:
        wanted = tree_of(root)
    image = convert_layers(tmp_path, [_odd_tree()], compression=compression)
    with mounted(image) as root:
        assert without_root(tree_of(root)) == without_root(wanted)
        top = os.fsencode(root)
        for above, subdirectories, _ in os.walk(top):
            assert os.lstat(above).st_nlink == 2 + len(subdirectories), above
            for name in subdirectories:
                inside = os.path.join(above, name)
                assert _inode_numbers(inside)[b".."] == os.stat(above).st_ino, inside
    out = tmp_path / "out"
    subprocess.run(["unsquashfs", "-quiet", "-no-progress", "-d", out, image], check=True, timeout=60)
    assert without_root(tree_of(out)) == without_root(wanted), "also for a reader that is not the kernel"


def _inode_numbers(path: bytes) -> dict[bytes, int]:
    """What readdir says of each entry, `.` and `..` included; os.scandir leaves them out."""
    listed = subprocess.run(["ls", "-aiU", path], capture_output=True, check=True, timeout=30).stdout
    rows = (line.strip().split(b" ", 1) for line in listed.split(b"\n") if line.strip()[:1].isdigit())
    return {row[1]: int(row[0]) for row in rows if len(row) == 2}


def test_the_same_image_gives_the_same_file(tmp_path: Path) -> None:
    contents = {convert_layers(tmp_path, [_odd_tree()]).read_bytes() for _ in range(2)}
    assert len(contents) == 1


@needs_root
def test_65500_files_in_one_directory(tmp_path: Path) -> None:
    """In an order that is not that of their names."""
    names = [f"d/{number * 40503 % 65536:05}" for number in range(65_500)]
    entries = [*BASE, directory("d"), *(file(name, name.encode()) for name in names)]
    image = convert_layers(tmp_path, [entries])
    listings_agree(image, entries)
    with mounted(image) as root:
        found = os.listdir(root / "d")
        assert found == sorted(name[2:] for name in names)
        for name in names[:: 65_500 // 500]:
            assert (root / name).read_text() == name
        assert not (root / "d/99999").exists()
