"""The writer of squashfs, at the edges of its format: what the kernel, unsquashfs, rdsquashfs and umoci find is what
the layer has, entry by entry; and the same layer gives the same bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.image.squashfs import superblock
from tests.gateway.archives import (
    BASE,
    Entry,
    directory,
    file,
    layer_tar,
    make_archive,
    make_oci_layout,
)
from tests.gateway.squashfs_cases import (
    NOISE,
    RANDOM,
    of_kinds,
    of_many_attributes,
    of_many_owners,
    of_sizes,
    of_very_many_names,
    trees,
)
from tests.gateway.squashfs_listings import kernel_agrees, listings_agree
from tests.gateway.squashfs_readers import (
    BLOCK_SIZES,
    agree,
    by_kernel,
    by_unsquashfs,
    content_at,
    wanted,
    write,
)
from tests.gateway.support import Found, in_memory, mounted, needs_root, umoci_tree, without_root

pytestmark = needs_root


def _umoci_agrees(layout: Path, entries: Sequence[Entry], right: dict[bytes, Found]) -> None:
    """Assert that umoci makes this tree of the layer, but for what it does not restore: attributes of symbolic links,
    and those without a value, since Go's archive/tar passes over a record that has none."""
    make_oci_layout(layout, [entries])
    kept = {
        name: replace(found, xattrs=tuple((key, value) for key, value in found.xattrs if value and found.kind != "l"))
        for name, found in right.items()
    }
    assert without_root(umoci_tree(layout)) == kept


@pytest.mark.parametrize(
    ("block_size", "compression"),
    [*((size, name) for size in BLOCK_SIZES[:2] for name in ("gzip", "zstd", "xz")), (BLOCK_SIZES[2], "gzip")],
)
def test_all_readers_find_what_the_layer_has(tmp_path: Path, block_size: int, compression: str) -> None:
    entries = [*BASE, *of_sizes(block_size), *of_kinds()]
    right = wanted(entries)
    image = write(tmp_path / "image", [entries], block_size, compression)
    assert by_kernel(image) == right
    agree(image, right, tmp_path)


def test_umoci_finds_the_same(tmp_path: Path) -> None:
    entries = [*BASE, *of_sizes(64 << 10), *of_kinds(depth=60)]
    right = wanted(entries)
    assert by_kernel(write(tmp_path / "image", [entries])) == right
    _umoci_agrees(tmp_path / "oci", entries, right)


@pytest.mark.parametrize("count", [256, 257, 512, 513])
def test_as_many_names_as_a_group_of_a_listing_has(tmp_path: Path, count: int) -> None:
    entries = [*BASE, directory("d"), *(file(f"d/{number:03}", b"") for number in range(count))]
    image = write(tmp_path / "image", [entries])
    assert by_kernel(image) == by_unsquashfs(image, tmp_path / "out") == wanted(entries)


def test_more_subdirectories_than_16_bits_count(tmp_path: Path) -> None:
    entries = of_very_many_names(files=1024)
    names = [os.fsdecode(entry.name[2:]) for entry in entries if entry.name.startswith(b"d/")]
    image = write(tmp_path / "image", [entries])
    listings_agree(image, entries)
    with mounted(image) as root:
        assert os.listdir(root / "d") == sorted(names)
        assert (root / "d").stat().st_nlink == 2 + 65_537
        first_and_last = [entry for entry in entries if entry.name in (b"d/00000", b"d/65536", b"d/link")]
        kernel_agrees(root, [*first_and_last, *RANDOM.sample(entries, 300)])
        for name in ["00000", "65536", *RANDOM.sample(names, 300)]:
            assert not (root / "d" / f"{name}~").exists()


@pytest.mark.long
def test_all_readers_unpack_very_many_names(tmp_path: Path) -> None:
    """Those of the test above, and more files, with what is in them. More still would take the kernel minutes."""
    entries = of_very_many_names(files=8192)
    right = wanted(entries)
    image = write(tmp_path / "image", [entries])
    assert by_kernel(image) == right
    with in_memory(tmp_path / "memory") as memory:
        agree(image, right, memory)
        _umoci_agrees(memory / "oci", entries, right)


def test_many_attributes_and_many_sets_of_them(tmp_path: Path) -> None:
    """Those of users no other file system here takes in such numbers: what rdsquashfs says of one file then."""
    entries = of_many_attributes("user")
    image = write(tmp_path / "image", [entries])
    assert by_kernel(image) == wanted(entries)
    argv: list[str | Path] = ["rdsquashfs", "--xattr", "/many", image]
    shown = subprocess.run(argv, check=True, capture_output=True, timeout=30).stdout
    many = next(entry.xattrs for entry in entries if entry.name == b"many")
    assert shown.splitlines() == [f"{name}=".encode() + value for name, value in sorted(many.items())]


def test_all_readers_restore_many_attributes(tmp_path: Path) -> None:
    entries = of_many_attributes("trusted")
    right = wanted(entries)
    image = write(tmp_path / "image", [entries])
    assert by_kernel(image) == right
    with in_memory(tmp_path / "memory") as memory:
        agree(image, right, memory)
        _umoci_agrees(memory / "oci", entries, right)


def test_more_owners_than_one_block_of_the_table_has(tmp_path: Path) -> None:
    entries = of_many_owners()
    right = wanted(entries)
    image = write(tmp_path / "image", [entries])
    assert by_kernel(image) == right
    agree(image, right, tmp_path)


@pytest.mark.parametrize("block_size", BLOCK_SIZES[1:])
def test_a_file_of_more_than_32_bits_of_bytes(tmp_path: Path, block_size: int) -> None:
    """A sparse one, with data at both ends, and around the position that 32 bits cannot say."""
    size = (1 << 32) + (1 << 20) + 5
    parts = {0: b"start", (1 << 32) - 4: b"4 before", size - 3: b"end"}
    with (tmp_path / "huge").open("wb") as stream:
        stream.truncate(size)
        for position, text in parts.items():
            stream.seek(position)
            stream.write(text)
    options = ["--sparse", "--format=pax", "--owner=0", "--group=0"]
    argv: list[str | Path] = ["tar", "-C", tmp_path, *options, "-cf", tmp_path / "layer", "huge"]
    subprocess.run(argv, check=True, timeout=60)
    image = write(tmp_path / "image", [BASE, (tmp_path / "layer").read_bytes()], block_size)
    assert image.stat().st_size < 1 << 20
    subprocess.run(["unsquashfs", "-quiet", "-no-progress", "-d", tmp_path / "out", image], check=True, timeout=120)
    with mounted(image) as root:
        for found in (root / "huge", tmp_path / "out/huge"):
            assert found.stat().st_size == size
            assert found.stat().st_blocks < 1 << 16, "what is not stored is not counted"
            for position, text in parts.items():
                start = max(0, position - 100)
                assert content_at(found, start, 200).strip(b"\0") == text
            assert content_at(found, 1 << 30, 1 << 20) == bytes(1 << 20)


@pytest.mark.parametrize("start", [(1 << 32) - (1 << 20), (1 << 32) + 1])
def test_positions_that_32_bits_cannot_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: int) -> None:
    """Of blocks and all tables, behind a hole of the image; `test_squashfs_large.py` has data in its place."""
    entries = [*BASE, *of_sizes(128 << 10), *of_kinds()]
    right = wanted(entries)
    monkeypatch.setattr(superblock, "SIZE", start)
    image = write(tmp_path / "image", [entries])
    assert image.stat().st_size > 1 << 32 > 50 * 512 * image.stat().st_blocks
    assert by_kernel(image) == right
    agree(image, right, tmp_path)


def test_equal_files_are_stored_once(tmp_path: Path) -> None:
    def sized(copies: int) -> int:
        small = [file(f"small{number}", NOISE[:100_000]) for number in range(copies)]
        large = [file(f"large{number}", NOISE[100_000 : 1 << 20]) for number in range(copies)]
        return write(tmp_path / "image", [[*BASE, *small, *large]]).stat().st_size

    assert sized(9) - sized(1) < 1000


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_the_same_bytes_by_any_number_of_threads(tmp_path: Path, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [*BASE, *of_sizes(128 << 10), *of_kinds()]
    first = write(tmp_path / "first", [entries]).read_bytes()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(threads)))
    assert write(tmp_path / "second", [entries]).read_bytes() == first
    assert write(tmp_path / "third", [entries]).read_bytes() == first


def test_the_same_bytes_by_processes_that_hash_differently(tmp_path: Path) -> None:
    make_archive(tmp_path / "image.tar", [[*BASE, *of_sizes(128 << 10), *of_kinds()]], how="gzip")
    program = [sys.executable, "-c", "from gateway.service.cli import main; main()", "convert"]
    found = set()
    for seed in ("0", "1", "4242"):
        output = tmp_path / seed
        argv: list[str | Path] = [*program, f"docker-archive:{tmp_path}/image.tar", output]
        subprocess.run(argv, check=True, capture_output=True, timeout=60, env={**os.environ, "PYTHONHASHSEED": seed})
        found.add(output.read_bytes())
    assert len(found) == 1


def test_an_image_that_tar2sqfs_made_still_mounts(tmp_path: Path) -> None:
    """As images were made before: gzip's level 1, in blocks of 128 KiB."""
    entries = [*BASE, *of_sizes(128 << 10), *of_kinds()]
    image = tmp_path / "image"
    argv: list[str | Path] = [
        "tar2sqfs",
        "--quiet",
        "--no-skip",
        "--compressor",
        "gzip",
        "--comp-extra",
        "level=1",
        image,
    ]
    subprocess.run(argv, input=layer_tar(entries), check=True, timeout=60)
    assert by_kernel(image) == by_kernel(write(tmp_path / "ours", [entries])) == wanted(entries)


_ANY = (trees(), st.sampled_from(BLOCK_SIZES), st.sampled_from(["gzip", "zstd", "xz"]))
_ALLOWED = [HealthCheck.too_slow, HealthCheck.data_too_large]


def _read_alike(
    directory: Path, entries: list[Entry], block_size: int, compression: str
) -> tuple[Path, dict[bytes, Found]]:
    image = write(directory / "image", [entries], block_size, compression)
    right = wanted(entries)
    assert by_kernel(image) == right
    agree(image, right, directory)
    return image, right


@settings(max_examples=60, suppress_health_check=_ALLOWED)
@given(*_ANY)
def test_any_tree(entries: list[Entry], block_size: int, compression: str) -> None:
    with TemporaryDirectory() as name:
        image, _ = _read_alike(Path(name), entries, block_size, compression)
        again = write(Path(name, "again"), [entries], block_size, compression)
        assert image.read_bytes() == again.read_bytes()


@pytest.mark.long
@settings(max_examples=1000, suppress_health_check=_ALLOWED)
@given(*_ANY)
def test_any_of_many_trees(entries: list[Entry], block_size: int, compression: str) -> None:
    with TemporaryDirectory() as name:
        _, right = _read_alike(Path(name), entries, block_size, compression)
        _umoci_agrees(Path(name, "oci"), entries, right)
