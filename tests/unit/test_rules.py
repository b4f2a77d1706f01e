"""Where nobody may mount anything: by components, never by the start of a text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udiroot.rules import KEPT, OURS, is_forbidden, is_within

NAME = st.text("abz2.-", min_size=1, max_size=4)
PATH = st.lists(NAME, min_size=1, max_size=4).map(lambda names: "/" + "/".join(names))


@given(PATH, NAME)
def test_a_longer_name_is_not_within(path: str, more: str) -> None:
    assert not is_within(path + more, path)
    assert is_within(f"{path}/{more}", path)
    assert is_within(path, path)
    assert not is_within(path, f"{path}/{more}")


@given(st.sampled_from(OURS), st.lists(NAME, max_size=2))
def test_nothing_on_in_or_over_what_is_ours(ours: str, deeper: list[str]) -> None:
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
