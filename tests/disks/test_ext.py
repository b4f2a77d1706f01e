"""ext2, ext3 and ext4 read in user space: what the kernel finds in the same file system, and damage."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.disks.ext import ExtFileSystem, is_ext
from gateway.disks.tar import write_tar
from gateway.image.blob import Blob
from tests.disks.trees import WAYS, make_file_system, make_tree, mounted, seen_in_directory, seen_in_tar
from tests.gateway.support import needs_root
from udiroot.errors import ImageInvalid


def archive_of(image: Path, output: Path, max_bytes: int = 1 << 30, max_entries: int = 10_000) -> int:
    """Write the archive of a file system; how many bytes of files were reported."""
    done: list[int] = []
    descriptor = os.open(image, os.O_RDONLY)
    try:
        with open(output, "wb") as stream:
            write_tar(ExtFileSystem(Blob.of_file(descriptor)), stream, max_bytes, max_entries, done.append)
    finally:
        os.close(descriptor)
    return sum(done)


@needs_root
@pytest.mark.parametrize("way", WAYS)
def test_the_archive_is_what_the_kernel_finds(tmp_path: Path, way: str) -> None:
    make_tree(tmp_path / "tree")
    image = make_file_system(tmp_path / "tree", tmp_path / "image", way)
    archive_of(image, tmp_path / "archive")
    with mounted(image, tmp_path / "point") as point:
        wanted = seen_in_directory(point)
    found = seen_in_tar(tmp_path / "archive")
    assert sorted(found) == sorted(wanted)
    for name, seen in wanted.items():
        assert found[name].content == seen.content, name
        assert (found[name].mode, found[name].owner, found[name].mtime) == (seen.mode, seen.owner, seen.mtime), name
        assert found[name].attributes == seen.attributes, name
    assert found["./usr/bin/program"].twin == found["./usr/bin/other"].twin


@needs_root
def test_the_same_files_are_the_same_bytes(tmp_path: Path) -> None:
    make_tree(tmp_path / "tree")
    for number, way in enumerate(("ext3", "ext4 of 1 KiB blocks")):
        make_file_system(tmp_path / "tree", tmp_path / f"image{number}", way)
        os.utime(tmp_path / f"image{number}")
    sizes = [archive_of(tmp_path / f"image{number}", tmp_path / f"archive{number}") for number in range(2)]
    one, other = (seen_in_tar(tmp_path / f"archive{number}") for number in range(2))
    assert sizes[0] == sizes[1]
    assert {name: seen for name, seen in one.items() if "lost+found" not in name and name != "."} == {
        name: seen for name, seen in other.items() if "lost+found" not in name and name != "."
    }
    archive_of(tmp_path / "image0", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "archive0").read_bytes()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[bytes]:
    """A file system with something of all that is read."""
    directory = tmp_path_factory.mktemp("small")
    tree = directory / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/text").write_text("text" * 1000)
    (tree / "etc/link").symlink_to("l" * 100)
    for number in range(40):
        (tree / f"file {number}").write_text("x")
    os.link(tree / "etc/text", tree / "twin")
    os.setxattr(tree / "etc/text", "user.note", b"v" * 300)
    yield make_file_system(tree, directory / "image", "ext4 of 1 KiB blocks", "512K").read_bytes()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, 130_000), st.binary(min_size=1, max_size=8)), min_size=1, max_size=6))
def test_damage_anywhere_is_the_image_s_fault(small: bytes, tmp_path: Path, changes: list[tuple[int, bytes]]) -> None:
    data = bytearray(small)
    for at, new in changes:
        data[at : at + len(new)] = new
    (tmp_path / "image").write_bytes(data)
    try:
        assert archive_of(tmp_path / "image", tmp_path / "archive", 16 << 20, 1000) <= 16 << 20
    except ImageInvalid as error:
        assert error.message
        assert "\n" not in error.message


@pytest.mark.parametrize("length", [0, 1024, 2047, 5000, 40_000])
def test_one_that_is_cut_off(small: bytes, tmp_path: Path, length: int) -> None:
    (tmp_path / "image").write_bytes(small[:length])
    with pytest.raises(ImageInvalid):
        archive_of(tmp_path / "image", tmp_path / "archive")


def test_limits(small: bytes, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(small)
    with pytest.raises(ImageInvalid, match="more than 1000 bytes"):
        archive_of(tmp_path / "image", tmp_path / "archive", max_bytes=1000)
    with pytest.raises(ImageInvalid, match="more than 20 files"):
        archive_of(tmp_path / "image", tmp_path / "archive", max_entries=20)


def test_a_journal_to_be_replayed_is_named(small: bytes, tmp_path: Path) -> None:
    data = bytearray(small)
    data[1024 + 96] |= 4
    (tmp_path / "image").write_bytes(data)
    with pytest.raises(ImageInvalid, match="was not unmounted"):
        archive_of(tmp_path / "image", tmp_path / "archive")


def test_what_is_none(tmp_path: Path) -> None:
    for data in (b"", b"\0" * 4096, b"x" * 4096):
        (tmp_path / "image").write_bytes(data)
        descriptor = os.open(tmp_path / "image", os.O_RDONLY)
        assert not is_ext(Blob.of_file(descriptor))
        with pytest.raises(ImageInvalid, match="no ext2"):
            write_tar(ExtFileSystem(Blob.of_file(descriptor)), io.BytesIO(), 1, 1, lambda _: None)
        os.close(descriptor)
