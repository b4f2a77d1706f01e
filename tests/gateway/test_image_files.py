"""The image files themselves: what the kernel and other readers find is what umoci makes of the same layers, entry by
entry."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gateway.archives import BASE, Entry, directory, file, make_archive, make_oci_layout, symlink
from tests.gateway.squashfs_readers import agree
from tests.gateway.stacks import HAND_MADE, RICH, stacks
from tests.gateway.support import (
    FORMATS,
    convert_layers,
    convert_source,
    mounted,
    needs_root,
    tree_of_layers,
    umoci_tree,
    without_root,
)

pytestmark = needs_root


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("name", HAND_MADE)
def test_hand_made_layers_equal_umoci(tmp_path: Path, name: str, image_format: str) -> None:
    make_oci_layout(tmp_path / "oci", HAND_MADE[name])
    right = without_root(umoci_tree(tmp_path / "oci"))
    assert without_root(tree_of_layers(tmp_path, HAND_MADE[name], image_format)) == right
    if image_format == "squashfs":
        agree(tmp_path / "image.squashfs", right, tmp_path)


@pytest.mark.parametrize("image_format", FORMATS)
def test_attributes_of_links_and_pipes_are_their_own(tmp_path: Path, image_format: str) -> None:
    """The kernel refuses `user.*` on them, and a call that follows a link would put them on what it leads to."""
    both = {"user.a": b"1", "trusted.b": b"2"}
    links = [symlink("to-etc", "etc", xattrs=both), symlink("to-nothing", "/none", xattrs=both)]
    found = tree_of_layers(
        tmp_path, [[*BASE, directory("etc"), *links, Entry(b"pipe", tarfile.FIFOTYPE, xattrs=both)]], image_format
    )
    assert {name: found[name].xattrs for name in (b"to-etc", b"to-nothing", b"pipe", b"etc")} == {
        b"to-etc": (("trusted.b", b"2"),),
        b"to-nothing": (("trusted.b", b"2"),),
        b"pipe": (("trusted.b", b"2"),),
        b"etc": (),
    }


@pytest.mark.parametrize("style", ["blobs", "hashes"])
@pytest.mark.parametrize("how", ["plain", "gzip", "zstd", "gzip-members", "zstd-frames"])
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


@settings(max_examples=60)
@given(stacks(), st.sampled_from(FORMATS))
def test_any_stack_of_layers_equals_umoci(layers: list[list[Entry]], image_format: str) -> None:
    with TemporaryDirectory() as name:
        work = Path(name)
        make_oci_layout(work / "oci", layers)
        right = without_root(umoci_tree(work / "oci"))
        assert without_root(tree_of_layers(work, layers, image_format)) == right
        if image_format == "squashfs":
            agree(work / "image.squashfs", right, work)
