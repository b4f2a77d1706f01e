"""Directories with tens of thousands of names: packed in time that is linear in them, and right on every reader."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from gateway.image.formats import squashfs
from tests.gateway.archives import BASE, Entry, another_name, directory, file, hardlink, symlink
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
@pytest.mark.parametrize(("compression", "part"), [("gzip:1", 1), ("gzip:1", 30), ("zstd:3", 7), ("xz", 30)])
def test_a_tree_in_parts_is_the_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str, part: int
) -> None:
    monkeypatch.setattr(squashfs, "_PART", 0)
    with mounted(convert_layers(tmp_path, [_odd_tree()], compression=compression)) as root:
        whole = tree_of(root)
        links = {path: os.lstat(os.path.join(os.fsencode(root), path)).st_nlink for path in whole}
    monkeypatch.setattr(squashfs, "_PART", part)
    image = convert_layers(tmp_path, [_odd_tree()], compression=compression)
    with mounted(image) as root:
        assert without_root(tree_of(root)) == without_root(whole)
        top = os.fsencode(root)
        assert {path: os.lstat(os.path.join(top, path)).st_nlink for path in whole} == links
        for above, subdirectories, _ in os.walk(top):
            for name in subdirectories:
                inside = os.path.join(above, name)
                assert _inode_numbers(inside)[b".."] == os.stat(above).st_ino, inside
    out = tmp_path / "out"
    subprocess.run(["unsquashfs", "-quiet", "-no-progress", "-d", out, image], check=True, timeout=60)
    assert without_root(tree_of(out)) == without_root(whole), "also for a reader that is not the kernel"


def _inode_numbers(path: bytes) -> dict[bytes, int]:
    """What readdir says of each entry, `.` and `..` included; os.scandir leaves them out."""
    listed = subprocess.run(["ls", "-aiU", path], capture_output=True, check=True, timeout=30).stdout
    rows = (line.strip().split(b" ", 1) for line in listed.split(b"\n") if line.strip()[:1].isdigit())
    return {row[1]: int(row[0]) for row in rows if len(row) == 2}


def test_the_same_image_gives_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(squashfs, "_PART", 20)
    contents = {convert_layers(tmp_path, [_odd_tree()]).read_bytes() for _ in range(2)}
    assert len(contents) == 1


@needs_root
def test_65500_files_in_one_directory(tmp_path: Path) -> None:
    """In an order that is not that of their names, which is the worst for a packer: it takes tar2sqfs 47 seconds."""
    names = [f"d/{number * 40503 % 65536:05}" for number in range(65_500)]
    start = os.times().children_user
    image = convert_layers(tmp_path, [[*BASE, *(file(name, name.encode()) for name in names)]])
    assert os.times().children_user - start < 10, "seconds of the packer's work"
    with mounted(image) as root:
        found = os.listdir(root / "d")
        assert found == sorted(name[2:] for name in names)
        for name in names[:: 65_500 // 500]:
            assert (root / name).read_text() == name
        assert not (root / "d/99999").exists()
