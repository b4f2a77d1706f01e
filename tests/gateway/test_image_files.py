"""The image files themselves: what is in them is what umoci makes of the same layers, entry by entry."""

from __future__ import annotations

import dataclasses
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.gateway.archives import (
    BASE,
    Entry,
    file,
    folder,
    hardlink,
    make_archive,
    make_oci_layout,
    opaque,
    symlink,
    whiteout,
)
from tests.gateway.support import (
    Found,
    convert_layers,
    convert_source,
    mounted,
    needs_root,
    tree_of,
    tree_of_layers,
    umoci_tree,
)

pytestmark = needs_root

ODD_NAMES = (
    "new\nline",
    " blank ",
    "back\\slash",
    "...",
    "a.wh.b",
    "tab\t",
    "*",
    "'\"$(x)",
    "-n",
    "%41",
    "c:d",
    "n" * 255,
)
RICH: tuple[Sequence[Entry], ...] = (
    [
        *BASE,
        folder("etc", 0o755),
        file("etc/passwd", b"root:x:0:0::/:/bin/sh\n"),
        folder("dark", 0o000),
        file("dark/inside", b"unreadable", mode=0o000),
        file("d/one", b"1" * 5000, uid=1000, gid=100),
        hardlink("d/two", "d/one"),
        hardlink("d/three", "/d/one"),
        symlink("usr/l", "../../../etc/passwd"),
        hardlink("usr/l2", "usr/l"),
        Entry(b"d/fifo", tarfile.FIFOTYPE, mode=0o622),
        file(b"d/\xff\xfe caf\xe9", b"bytes"),
        file("/".join(["deep" * 20] * 12), b"long"),
        file("big", os.urandom(1 << 20) + bytes(1 << 20)),
        *(file(f"d/{name}", b"odd") for name in ODD_NAMES),
        file("setuid", b"s", mode=0o4755, uid=12345, gid=54321),
        folder("sticky", 0o1777),
        file("x", b"x", xattrs={"user.one": b"1", "user.two": b"\x00\xff=\n"}),
        file("many/owners", b"", uid=4_000_000_000, gid=3_000_000),
    ],
    [whiteout("d/one"), file("etc/passwd", b"new"), folder("etc", 0o700), hardlink("d/four", "d/three")],
    [folder("dark", 0o100), file("d/two", b"replaced"), opaque("many"), file("many/fresh", b"f")],
)


def test_squashfs_equals_umoci(tmp_path: Path) -> None:
    make_oci_layout(tmp_path / "oci", RICH)
    assert tree_of_layers(tmp_path, RICH) == umoci_tree(tmp_path / "oci")


def test_ext4_equals_squashfs(tmp_path: Path) -> None:
    make_archive(tmp_path / "image.tar", RICH)
    facts = convert_source(f"docker-archive:{tmp_path}/image.tar", tmp_path / "image.ext4", format="ext4")
    assert facts.format == "ext4"
    with mounted(tmp_path / "image.ext4", "ext4") as root:
        found = tree_of(root)
    assert found == tree_of_layers(tmp_path, RICH)


@pytest.mark.parametrize("style", ["blobs", "hashes"])
@pytest.mark.parametrize("how", ["plain", "gzip", "zstd", "gzip-members"])
def test_the_same_image_gives_the_same_file(tmp_path: Path, how: str, style: str) -> None:
    layers = [*RICH, RICH[2]]
    reference = convert_layers(tmp_path, layers)
    make_archive(tmp_path / "other.tar", layers, how=how, style=style)
    convert_source(f"docker-archive:{tmp_path}/other.tar", tmp_path / "other.squashfs")
    assert (tmp_path / "other.squashfs").read_bytes() == reference.read_bytes()


@pytest.mark.parametrize("compression", ["gzip:1", "gzip:9", "zstd:3", "zstd:19", "lz4", "lzo", "xz"])
def test_compressions_of_squashfs(tmp_path: Path, compression: str) -> None:
    with mounted(convert_layers(tmp_path, [[*BASE, file("a", b"a" * 200_000)]], compression=compression)) as root:
        assert (root / "a").read_bytes() == b"a" * 200_000


@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_the_umask_does_not_leak_into_the_image(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        found = tree_of_layers(tmp_path, [[*BASE, file("a/b", mode=0o666)]])
    finally:
        os.umask(before)
    assert (found[b"a/b"].mode, found[b"a"].mode) == (0o666, 0o755)


# Layer stacks that nobody thought of

NAMES = ("a", "b", "c")
PATHS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join)
MODES = st.sampled_from([0o700, 0o755, 0o1777, 0o511])


def _entries(path: str) -> st.SearchStrategy[Entry]:
    return st.one_of(
        st.builds(lambda data, mode: file(path, data, mode=mode), st.binary(max_size=3), MODES),
        st.builds(lambda mode, uid: folder(path, mode, uid=uid), MODES, st.integers(0, 70_000)),
        st.builds(lambda target: symlink(path, target), st.sampled_from(["a", "/b", "../c", "nowhere", "../../a/b"])),
    )


@st.composite
def stacks(draw: st.DrawFn) -> list[list[Entry]]:
    """Layers as a container engine would write them: a name once, parents first, and they are directories.

    So much umoci and the specification agree on; what else archives do has its named tests.
    """
    layers: list[list[Entry]] = [[*BASE]]
    for _ in range(draw(st.integers(1, 4))):
        hidden: list[Entry] = []
        made: dict[str, Entry] = {}
        for path in draw(st.lists(PATHS, max_size=6, unique=True)):
            parents = [path[:at] for at, letter in enumerate(path) if letter == "/"]
            if any(parent in made and made[parent].kind != tarfile.DIRTYPE for parent in parents):
                continue
            for parent in parents:
                made.setdefault(parent, folder(parent))
            if path not in made:
                made[path] = draw(_entries(path))
        for path in draw(st.lists(PATHS, max_size=2, unique=True)):
            if not any(path == other or other.startswith(path + "/") for other in made):
                parents = [path[:at] for at, letter in enumerate(path) if letter == "/"]
                if all(parent not in made or made[parent].kind == tarfile.DIRTYPE for parent in parents):
                    hidden.append(whiteout(path))
                    for parent in parents:
                        made.setdefault(parent, folder(parent))
        folders = sorted(path for path, entry in made.items() if entry.kind == tarfile.DIRTYPE)
        markers = [opaque(path) for path in folders if draw(st.integers(0, 3)) == 0]
        files = sorted(path for path, entry in made.items() if entry.kind == tarfile.REGTYPE)
        links = [hardlink(f"link{len(layers)}{number}", path) for number, path in enumerate(files[:2])]
        ordered = [made[path] for path in sorted(made)]
        layers.append([*ordered, *hidden, *markers, *links])
    return layers


def _comparable(tree: dict[bytes, Found]) -> dict[bytes, Found]:
    """The root's own attributes are nobody's in an archive that has no entry for it."""
    return {path: dataclasses.replace(found, mtime=0) for path, found in tree.items() if path != b"."}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(stacks())
def test_any_stack_of_layers_equals_umoci(layers: list[list[Entry]]) -> None:
    with TemporaryDirectory() as name:
        work = Path(name)
        make_oci_layout(work / "oci", layers)
        assert _comparable(tree_of_layers(work, layers)) == _comparable(umoci_tree(work / "oci"))
