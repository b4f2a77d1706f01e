"""The rules of the root: names that an image may have, and where nobody may mount anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udiroot.errors import ImageInvalid
from udiroot.rules import KEPT, OURS, check_name, check_names, hides_ours, in_real_directory, is_forbidden, is_within

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


@pytest.mark.parametrize("target", ["/scratch", "/scratch/deep", "/"])
def test_nothing_on_or_over_what_is_mounted_but_in_it(target: str) -> None:
    assert is_forbidden(target, ["/scratch/deep", "/scratch"])
    assert not is_forbidden(f"{target.rstrip('/')}/scratch2", ["/scratch", "/scratch/deep"])


@pytest.mark.parametrize(
    "target", ["/", "/etc", "/var", "/proc", "/opt", "/opt/udi", "/opt/udi/bin/x", "/var/nodelist"]
)
def test_where_a_site_may_not_mount(target: str) -> None:
    assert hides_ours(target)


@pytest.mark.parametrize("target", ["/etc/opt/cray", "/var/spool/alps", "/opt/cray", "/tmp", "/usr", "/etc/hosts"])
def test_where_it_may(target: str) -> None:
    assert not hides_ours(target)


@pytest.mark.parametrize("name", ["bin", "lib64", "lost+found", "x-y", ".hidden", "_", "a.b", "9", "R@4.2",
                                  "foo~rc1", "a b", "a:b", "\u00e9", "\u65e5\u672c", "a\\b", "\u00a0"])  # fmt: skip
def test_names_that_a_root_can_have(name: str) -> None:
    check_name(name, "/ of the image")
    check_names(["bin", name], "/ of the image")


@pytest.mark.parametrize("name", ["", ".", "..", "-rf", "a/b", "a\n", "a\0", "\x7f", "\x85", "\x9b", "\udcff"])
def test_names_that_it_cannot_have(name: str) -> None:
    with pytest.raises(ImageInvalid, match=r"^invalid name '.*' in /etc of the image$"):
        check_name(name, "/etc of the image")


@pytest.mark.parametrize("name", ["-rf", "a\n", "\x7f", "\x85", "\x9b", "\udcff"])
def test_one_such_name_among_many(name: str) -> None:
    for names in ([name, "etc"], ["bin", name, "etc"], ["bin", name]):
        with pytest.raises(ImageInvalid, match="in /etc of the image"):
            check_names(names, "/etc of the image")


def test_links_above_the_last_name_are_resolved(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    (tmp_path / "run/udi").symlink_to("elsewhere")
    assert in_real_directory(f"{tmp_path}/link/udi") == f"{tmp_path}/run/udi"
    assert in_real_directory("/udi") == "/udi"
