"""Paths inside a root, by the kernel's own call and by the walk for older kernels: the same place, never outside."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from udiroot.inroot import Place, resolve, walk

NAMES = ("a", "b", "c")
PART = st.sampled_from((*NAMES, "..", ".", ""))
TARGET = st.builds(lambda head, parts: head + "/".join(parts), st.sampled_from(("", "/")), st.lists(PART, min_size=1))
ENTRY = st.one_of(
    st.tuples(st.just("directory"), st.just("")),
    st.tuples(st.just("file"), st.just("")),
    st.tuples(st.just("link"), TARGET.filter(bool)),
)
TREE = st.dictionaries(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join), ENTRY, max_size=12)


def _make(root: Path, tree: dict[str, tuple[str, str]]) -> None:
    """The entries whose parents are directories; the outside has the same names, so that an escape would be seen."""
    for top in (root, root.parent):
        for path, (kind, target) in sorted(tree.items()):
            place = top / path
            if place.parent.is_symlink() or not place.parent.is_dir() or place.is_symlink() or place.exists():
                continue
            if kind == "directory":
                place.mkdir()
            elif kind == "file":
                place.write_text("")
            else:
                place.symlink_to(target)


def _answer(way: Callable[[str, str], Place], root: str, path: str) -> tuple[str, object]:
    try:
        with way(root, path) as place:
            return place.path, os.fstat(place.descriptor).st_ino
    except OSError as error:
        return "error", error.errno


@example({}, "")
@given(TREE, TARGET)
def test_both_ways_find_the_same_place_inside(tree: dict[str, tuple[str, str]], path: str) -> None:
    with tempfile.TemporaryDirectory() as outside:
        root = Path(outside) / "c"
        root.mkdir()
        _make(root, tree)
        found = _answer(resolve, str(root), path)
        assert found == _answer(walk, str(root), path)
        if found[0] != "error":
            inside = [
                root,
                *(Path(directory) / name for directory, names, files in os.walk(root) for name in names + files),
            ]
            assert found[1] in {place.lstat().st_ino for place in inside}
            assert (root / found[0].lstrip("/")).lstat().st_ino == found[1]


@pytest.mark.parametrize("way", [resolve, walk])
@pytest.mark.parametrize(
    ("link", "path", "found"),
    [
        ("/etc", "l/passwd", "error"),
        ("/../../../etc", "l", "error"),
        ("/", "l/../../l/a", "/a"),
        ("../../a", "l", "/a"),
        ("a/", "l", "/a"),
        ("l", "l", "error"),
    ],
)
def test_links_that_try_to_leave(
    way: Callable[[str, str], Place], link: str, path: str, found: str, tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "l").symlink_to(link)
    assert _answer(way, str(tmp_path), path)[0] == found


def test_links_of_the_kernel_s_own_are_not_followed(tmp_path: Path) -> None:
    """/proc/self/root inside a root would lead out of it."""
    with pytest.raises(OSError, match="symbolic links"):
        resolve("/", "/proc/self/root/etc")
