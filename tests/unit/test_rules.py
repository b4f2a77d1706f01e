"""The rules of the root: names that an image may have, and where nobody may mount anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udiroot.errors import ImageInvalid
from udiroot.rules import KEPT, OURS, check_name, in_real_directory, is_forbidden, is_within

NAME = st.text("abz2.-", min_size=1, max_size=4)
PATH = st.lists(NAME, min_size=1, max_size=4).map(lambda names: "/" + "/".join(names))


@given(PATH, NAME)
def test_a_longer_name_is_not_within(path: str, more: str) -> None:
    assert not is_within(path + more, path)
    assert is_within(f"{path}/{more}", path)
    assert is_within(path, path)
    assert not is_within(path, f"{path}/{more}")


@given(st.sampled_from(OURS), st.lists(NAME, max_size=2))
def test_nothing_on_in_or_over_our_own_paths(ours: str, deeper: list[str]) -> None:
    assert is_forbidden("/".join((ours, *deeper)))
    parts = ours.split("/")
    for end in range(1, len(parts)):
        assert is_forbidden("/".join(parts[:end]) or "/")


@given(st.sampled_from(KEPT), NAME)
def test_nothing_on_what_the_image_needs_but_in_it(kept: str, name: str) -> None:
    assert is_forbidden(kept)
    if f"{kept}/{name}" not in (*KEPT, *OURS):
        assert not is_forbidden(f"{kept}/{name}")


@pytest.mark.parametrize("target", ["/scratch", "/scratch/deep", "/", "/scratch/deep/er"])
def test_nothing_on_in_or_over_what_is_mounted(target: str) -> None:
    assert is_forbidden(target, ["/scratch/deep", "/scratch"])
    assert not is_forbidden("/scratch2", ["/scratch"])


@pytest.mark.parametrize("name", ["bin", "lib64", "lost+found", "x-y", ".hidden", "_", "a.b", "9"])
def test_names_that_a_root_can_have(name: str) -> None:
    check_name(name, "/ of the image")


@pytest.mark.parametrize("name", ["", ".", "..", "-rf", "a b", "a/b", "a\n", "a:b", "\u00e9", "a\0", "\udcff"])
def test_names_that_it_cannot_have(name: str) -> None:
    with pytest.raises(ImageInvalid, match=r"^invalid name '.*' in /etc of the image$"):
        check_name(name, "/etc of the image")


def test_links_above_the_last_name_are_resolved(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    (tmp_path / "run/udi").symlink_to("elsewhere")
    assert in_real_directory(f"{tmp_path}/link/udi") == f"{tmp_path}/run/udi"
    assert in_real_directory("/udi") == "/udi"
