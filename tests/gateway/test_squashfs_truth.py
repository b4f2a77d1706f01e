"""The writer of squashfs, at the edges of its format: what the kernel, unsquashfs, rdsquashfs and umoci find is what
the layer has, entry by entry; and the same layer gives the same bytes."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.gateway.archives import (
    BASE,
    Entry,
    another_name,
    directory,
    file,
    layer_tar,
    make_archive,
    make_oci_layout,
    symlink,
)
from tests.gateway.squashfs_readers import (
    BLOCK_SIZES,
    by_kernel,
    by_rdsquashfs,
    by_unsquashfs,
    content_at,
    wanted,
    without_groups,
    write,
)
from tests.gateway.support import mounted, needs_root, umoci_tree, without_root

pytestmark = needs_root
_RANDOM = random.Random(1)
_NOISE = _RANDOM.randbytes(3 << 20)


def _of_sizes(block: int) -> list[Entry]:
    """Files around the sizes of blocks, of noise, of text and of zeros; with zeros before, within and behind; twice."""
    sizes = {0, 1, 511, 512, 513, block - 1, block, block + 1, 2 * block, 2 * block + 1}
    made: list[Entry] = [directory("sizes")]
    for size in sorted(sizes):
        for kind, data in (("noise", _NOISE), ("text", b"words of a text " * (size // 16 + 1)), ("zeros", bytes(size))):
            made.append(file(f"sizes/{size}-{kind}", data[:size], mode=0o640))
            made.append(file(f"sizes/{size}-{kind}-again", data[:size], uid=7))
    for name, parts in (("before", (0, 1)), ("within", (1, 0, 1)), ("behind", (1, 0)), ("around", (0, 0, 1, 0))):
        for more in (b"", b"x", bytes(1), bytes(513), bytes(600) + b"x"):
            data = b"".join(_NOISE[:block] if part else bytes(block) for part in parts) + more
            made.append(file(f"sizes/{name}-{len(more)}-{more[-1:].hex()}", data))
    return made


def _of_kinds(depth: int = 600) -> list[Entry]:
    """All kinds of inodes, short and extended, with all that they may have."""
    one, link, pipe = file("kinds/one", b"1" * 5000, uid=5), symlink("kinds/link", "one"), _fifo("kinds/fifo")
    attributed = {"user.a": b"1"}
    return [
        directory("kinds", 0o1777, gid=9),
        one,
        *(another_name(f"kinds/one-{number}", one) for number in range(70)),
        link,
        another_name("kinds/link-2", link),
        pipe,
        another_name("kinds/fifo-2", pipe),
        directory("kinds/attributed", 0o2711, xattrs=attributed),
        file("kinds/attributed/small", b"small", xattrs=attributed),
        file("kinds/attributed/large", _NOISE[: 300 << 10], xattrs={**attributed, "trusted.b": b"\0\xff"}),
        file("kinds/attributed/empty", b"", xattrs=attributed),
        symlink("kinds/attributed/link", "small", xattrs={"trusted.of-a-link": b""}),
        _fifo("kinds/attributed/fifo", xattrs={"trusted.of-a-fifo": b"x"}),
        symlink("kinds/far", "x" * 4095),
        directory("kinds/empty", 0o000),
        file("kinds/setuid", b"s", mode=0o6755),
        *(file(f"kinds/time-{time}", b"", mtime=time) for time in (0, 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)),
        directory("kinds/" + "d" * 255),
        file("kinds/" + "d" * 255 + "/" + "f" * 255, b"long"),
        *(directory("deep" + "/d" * above) for above in range(depth)),
        file("deep" + "/d" * (depth - 1) + "/f", b"deep"),
    ]


def _fifo(name: str, **more: dict[str, bytes]) -> Entry:
    return Entry(name.encode(), tarfile.FIFOTYPE, mode=0o622, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("block_size", "compression"),
    [*((size, name) for size in BLOCK_SIZES[:2] for name in ("gzip", "zstd", "xz")), (BLOCK_SIZES[2], "gzip")],
)
def test_all_readers_find_what_the_layer_has(tmp_path: Path, block_size: int, compression: str) -> None:
    entries = [*BASE, *_of_sizes(block_size), *_of_kinds()]
    right = wanted(entries)
    image = write(tmp_path / "image", [entries], block_size, compression)
    assert by_kernel(image) == right
    assert by_unsquashfs(image, tmp_path / "unsquashfs") == right
    assert by_rdsquashfs(image, tmp_path / "rdsquashfs") == without_groups(right)


def test_umoci_finds_the_same(tmp_path: Path) -> None:
    """But for attributes of symbolic links, which umoci does not restore."""
    entries = [*BASE, *_of_sizes(64 << 10), *_of_kinds(depth=60)]
    entries = [replace(each, xattrs={}) if each.kind == tarfile.SYMTYPE else each for each in entries]
    make_oci_layout(tmp_path / "oci", [entries])
    assert without_root(umoci_tree(tmp_path / "oci")) == by_kernel(write(tmp_path / "image", [entries]))


@pytest.mark.parametrize("count", [256, 257, 512, 513])
def test_as_many_names_as_a_group_of_a_listing_has(tmp_path: Path, count: int) -> None:
    entries = [*BASE, directory("d"), *(file(f"d/{number:03}", b"") for number in range(count))]
    image = write(tmp_path / "image", [entries])
    assert by_kernel(image) == by_unsquashfs(image, tmp_path / "out") == wanted(entries)


def test_more_subdirectories_than_16_bits_count(tmp_path: Path) -> None:
    """Each is a link to its parent. Between them are files, with names so long that the index is large as well."""
    names = {f"{number:05}": directory(f"d/{number:05}") for number in range(65_537)}
    names |= {f"{number:05}-{'n' * 249}": file(f"d/{number:05}-{'n' * 249}", b"") for number in range(0, 65_536, 64)}
    image = write(tmp_path / "image", [[*BASE, directory("d"), *_RANDOM.sample(list(names.values()), len(names))]])
    with mounted(image) as root:
        assert os.listdir(root / "d") == sorted(names)
        assert (root / "d").stat().st_nlink == 2 + 65_537
        for name in ["00000", "65536", *_RANDOM.sample(list(names), 300)]:
            assert (root / "d" / name).is_dir() == (len(name) == 5)
            assert not (root / "d" / f"{name}~").exists()
    for words in (["unsquashfs", "-lc"], ["rdsquashfs", "--describe"]):
        listed = subprocess.run([*words, image], check=True, capture_output=True, timeout=60).stdout
        assert listed.count(b"d/") - listed.count(b"/d/d/") == len(names), words


def test_many_attributes_and_many_sets_of_them(tmp_path: Path) -> None:
    """Each reader but the kernel would need a file system that takes so many: what rdsquashfs says of one file then."""
    many = {f"user.{number:03}{'n' * (number % 200)}": b"%d" % number * (number % 50) for number in range(500)}
    entries = [
        *BASE,
        file("many", b"", xattrs=many),
        file("again", b"", xattrs=many),
        file("large", b"", xattrs={"user.large": _NOISE[:65_535], "user." + "n" * 250: b"1", "trusted.x": b""}),
        directory("sets"),
        *(file(f"sets/{number}", b"", xattrs={"user.set": b"%d" % (number // 2)}) for number in range(3000)),
    ]
    image = write(tmp_path / "image", [entries])
    assert by_kernel(image) == wanted(entries)
    shown = subprocess.run(
        ["rdsquashfs", "--xattr", "/many", image], check=True, capture_output=True, timeout=30
    ).stdout
    assert shown.splitlines() == [f"{name}=".encode() + value for name, value in sorted(many.items())]


def test_more_owners_than_one_block_of_the_table_has(tmp_path: Path) -> None:
    """2048 numbers are in one block of metadata."""
    owners = [(number * 65_537, (number * 3) ^ 0xFFFF_0000) for number in range(3000)]
    files = (file(f"d/{number}", b"", uid=uid, gid=gid) for number, (uid, gid) in enumerate(owners))
    entries = [*BASE, directory("d", uid=(1 << 32) - 2, gid=(1 << 32) - 2), *files]
    image = write(tmp_path / "image", [entries])
    assert by_kernel(image) == by_unsquashfs(image, tmp_path / "out") == wanted(entries)


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


def test_equal_files_are_stored_once(tmp_path: Path) -> None:
    def sized(copies: int) -> int:
        small = [file(f"small{number}", _NOISE[:100_000]) for number in range(copies)]
        large = [file(f"large{number}", _NOISE[100_000 : 1 << 20]) for number in range(copies)]
        return write(tmp_path / "image", [[*BASE, *small, *large]]).stat().st_size

    assert sized(9) - sized(1) < 1000


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_the_same_bytes_by_any_number_of_threads(tmp_path: Path, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [*BASE, *_of_sizes(128 << 10), *_of_kinds()]
    first = write(tmp_path / "first", [entries]).read_bytes()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(threads)))
    assert write(tmp_path / "second", [entries]).read_bytes() == first
    assert write(tmp_path / "third", [entries]).read_bytes() == first


def test_the_same_bytes_by_processes_that_hash_differently(tmp_path: Path) -> None:
    make_archive(tmp_path / "image.tar", [[*BASE, *_of_sizes(128 << 10), *_of_kinds()]], how="gzip")
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
    entries = [*BASE, *_of_sizes(128 << 10), *_of_kinds()]
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


_NAMES = st.binary(min_size=1, max_size=255).filter(lambda name: not {0, 47} & set(name) and not _is_special(name))
_BYTES = st.one_of(
    st.binary(max_size=40),
    st.builds(
        lambda start, zeros, length: (
            _NOISE[start : start + length] + bytes(zeros) + _NOISE[start : start + length % 999]
        ),
        st.integers(0, 9000),
        st.integers(0, 9000),
        st.integers(0, 13_000),
    ),
    st.builds(lambda blocks, more: bytes(4096 * blocks + more), st.integers(0, 3), st.integers(0, 2)),
)
_XATTRS = st.dictionaries(
    st.sampled_from(["user.a", "user.b", "trusted.c", "user." + "n" * 250]), st.binary(max_size=90), max_size=3
)
_OWNER, _MODE, _TIME = st.integers(0, (1 << 32) - 2), st.integers(0, 0o7777), st.integers(0, (1 << 32) - 1)


def _is_special(name: bytes) -> bool:
    """Whether it means something to layers, or to a node."""
    return name in (b".", b"..") or name.startswith(b".wh.")


@st.composite
def _trees(draw: st.DrawFn) -> list[Entry]:
    """One layer, with parents first."""
    made = [*BASE, directory("top")]
    paths = {entry.name for entry in made}
    directories = [b"top"]
    for name in draw(st.lists(_NAMES, max_size=25)):
        path = draw(st.sampled_from(directories)) + b"/" + name
        if path in paths or len(path) > 3000:
            continue
        paths.add(path)
        made.append(draw(_entry(path, [entry for entry in made if entry.kind == tarfile.REGTYPE])))
        if made[-1].kind == tarfile.DIRTYPE:
            directories.append(path)
    return made


def _entry(path: bytes, files: list[Entry]) -> st.SearchStrategy[Entry]:
    common = {"mode": _MODE, "uid": _OWNER, "gid": _OWNER, "mtime": _TIME}
    targets = st.binary(min_size=1, max_size=300).filter(lambda target: 0 not in target)
    return st.one_of(
        st.builds(file, st.just(path), _BYTES, xattrs=_XATTRS, **common),
        st.builds(directory, st.just(path), xattrs=_XATTRS, **common),
        st.builds(symlink, st.just(path), targets, uid=_OWNER, gid=_OWNER, mtime=_TIME),
        st.builds(Entry, st.just(path), st.just(tarfile.FIFOTYPE), **common),
        st.builds(another_name, st.just(path), st.sampled_from(files)),
    )


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(_trees(), st.sampled_from(BLOCK_SIZES), st.sampled_from(["gzip", "zstd", "xz"]))
def test_any_tree(entries: list[Entry], block_size: int, compression: str) -> None:
    with TemporaryDirectory() as name:
        image = write(Path(name, "image"), [entries], block_size, compression)
        right = wanted(entries)
        assert by_kernel(image) == right
        assert image.read_bytes() == write(Path(name, "again"), [entries], block_size, compression).read_bytes()
