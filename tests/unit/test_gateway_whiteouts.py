"""Flattening, without a packer: whiteouts and opaque markers, and the pseudo links of aufs (docs/lessons.md)."""

from __future__ import annotations

import os

import pytest

from tests.gateway.archives import (
    BASE,
    Entry,
    directory,
    file,
    hardlink,
    opaque,
    symlink,
    whiteout,
)
from tests.unit.flattened import Result, flat, refused


def test_whiteouts_of_a_file_and_of_a_directory() -> None:
    result = flat([file("a"), file("d/x/y")], [whiteout("a"), whiteout("d/x")])
    assert "a" not in result
    assert "d" in result
    assert not result.below("d")


@pytest.mark.parametrize("order", [1, -1])
def test_a_whiteout_beside_what_its_own_layer_makes_anew(order: int) -> None:
    upper = [whiteout("a"), file("a/new")][::order]
    result = flat([directory("a", 0o700), file("a/old"), file("a/sub/old")], upper)
    assert result.below("a") == {"a/new"}
    assert result["a"].mode == 0o755, "the lower directory is hidden with its attributes"


@pytest.mark.parametrize("order", [1, -1])
def test_a_whiteout_beside_the_same_name(order: int) -> None:
    result = flat([file("a", b"old")], [whiteout("a"), file("a", b"new")][::order])
    assert result.data("a") == b"new"


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_an_opaque_marker_anywhere_in_its_layer_hides_lower_layers_only(place: int) -> None:
    upper = [directory("d", 0o711), file("d/new"), file("d/sub/new")]
    upper.insert(place, opaque("d"))
    result = flat([directory("d"), file("d/old"), file("d/sub/old"), directory("d/sub", 0o700)], upper)
    assert result.below("d") == {"d/new", "d/sub", "d/sub/new"}
    assert result["d"].mode == 0o711
    assert result["d/sub"].mode == 0o755


def test_an_opaque_root() -> None:
    result = flat([file("old")], [opaque(""), *BASE, file("new")])
    assert "new" in result
    assert "old" not in result


@pytest.mark.parametrize("place", [0, 1])
def test_an_opaque_marker_through_a_lower_symlink_spares_its_target(place: int) -> None:
    upper = [directory("link"), file("link/new")]
    upper.insert(place, opaque("link"))
    result = flat([file("target/keep"), symlink("link", "/target")], upper)
    assert result.below("target") == {"target/keep"}
    assert result["link"].isdir()
    assert result.below("link") == {"link/new"}


def test_whiteouts_of_what_is_not_there() -> None:
    assert "new" in flat([file("a")], [whiteout("b"), whiteout("no/such/thing"), opaque("nowhere"), file("new")])


@pytest.mark.parametrize("marker", [whiteout("a/x"), opaque("a/x"), opaque("a")])
def test_a_marker_behind_a_circle_of_links_hides_nothing(marker: Entry) -> None:
    result = flat([symlink("a", "b"), symlink("b", "a"), file("c")], [marker, directory("a"), file("a/new")])
    assert result.below("a") == {"a/new"}
    assert "c" in result


@pytest.mark.parametrize("name", [".wh.", "a/.wh.", ".wh..wh.plnk", ".wh..wh.orph/x", ".wh..", ".wh..."])
def test_odd_whiteouts_hide_nothing_and_are_no_files(name: str) -> None:
    result = flat([file("a/b")], [file(name, b"")])
    assert result.below("a") == {"a/b"}
    assert not any(b".wh." in path for path in result.members)


def test_a_whiteout_stored_as_a_hard_link_is_a_whiteout() -> None:
    result = flat([file("a"), file("b")], [hardlink(".wh.a", ".wh..wh.plnk/1")])
    assert "a" not in result
    assert "b" in result


def test_a_whiteout_and_a_directory_again_in_three_layers() -> None:
    result = flat([file("d/one")], [whiteout("d")], [file("d/two")])
    assert result.below("d") == {"d/two"}


def test_many_markers_are_not_quadratic() -> None:
    lower = [file(f"d/{number}", b"") for number in range(5000)]
    upper = [directory(f"d/new{number}") for number in range(5000)]
    markers = [entry for number in range(5000) for entry in (opaque("d"), whiteout(f"d/{number}"))]
    result = flat(lower, [*upper, *markers])
    assert len(result.below("d")) == 5000


@pytest.mark.parametrize("how", ["plain", "gzip"])
def test_pseudo_links_of_aufs_are_hard_links(how: str) -> None:
    """Layers of Dockers of old on aufs: the data of a file with several names is in `.wh..wh.plnk` alone."""
    plink = ".wh..wh.plnk"
    layer = [
        file("before", b"1" * 5000),
        directory(plink, 0o700),
        file(f"{plink}/12.34", b"data of both", mode=0o751, uid=7),
        file(f"{plink}/12.35", b"of one"),
        file(f"{plink}/12.36", b"of none"),
        file("between", b"2" * 5000),
        hardlink("usr/a", f"{plink}/12.34"),
        hardlink("c", f"/{plink}/12.35"),
        file("after", b"3" * 5000),
        hardlink("b", f"./{plink}/12.34"),
    ]
    image = Result([BASE, [file("c", b"hidden")], layer, [whiteout("after")]], how)
    assert [image.data(name) for name in ("usr/a", "b", "c", "between")] == [b"data of both"] * 2 + [
        b"of one",
        b"2" * 5000,
    ]
    first, second = sorted((image["usr/a"], image["b"]), key=lambda member: member.islnk())
    assert (first.mode, first.uid) == (0o751, 7) and second.linkname == first.name
    assert not any(plink in name for name in map(os.fsdecode, image.members))
    assert b"of none" not in image.stream


@pytest.mark.parametrize("target", [".wh..wh.plnk/9", ".wh..wh.plnk", "d/.wh..wh.plnk/1", ".wh..wh.plnk/d/1"])
def test_pseudo_links_that_are_not_there(target: str) -> None:
    assert "does not exist" in refused([file(".wh..wh.plnk/1"), file("d/.wh..wh.plnk/1"), hardlink("a", target)])
    assert "does not exist" in refused([file(".wh..wh.plnk/1")], [hardlink("a", ".wh..wh.plnk/1")]), "of its layer only"
