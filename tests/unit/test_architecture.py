"""Architectures: their spellings, and which images nodes run."""

from __future__ import annotations

import pytest

from udi.architecture import ARCHITECTURES, KNOWN_ARCHITECTURE, Architecture
from udiroot.errors import UsageError


@pytest.mark.parametrize(
    ("spelled", "normal"),
    [
        ("x86_64", "amd64"),
        ("x86-64", "amd64"),
        ("X86_64", "amd64"),
        ("AMD64", "amd64"),
        ("amd64/v1", "amd64"),
        ("amd64/3", "amd64/v3"),
        ("x86_64/V3", "amd64/v3"),
        ("aarch64", "arm64"),
        ("arm64/v8", "arm64"),
        ("arm64/v8.0", "arm64"),
        ("arm64/8.2", "arm64/v8.2"),
        ("arm/v7", "arm"),
        ("armhf", "arm"),
        ("armel", "arm/v6"),
        ("i686", "386"),
        ("ppc64el", "ppc64le"),
        ("loongarch64", "loong64"),
        ("mips64el", "mips64le"),
        ("s390x", "s390x"),
    ],
)
def test_one_spelling(spelled: str, normal: str) -> None:
    assert str(Architecture.parse(spelled)) == normal
    assert KNOWN_ARCHITECTURE.broken_by(spelled) == ""


@pytest.mark.parametrize("text", ["", "amd", "vax", "amd64/v", "amd64/v3x", "unknown", "amd64 ", "amd64/v3/v4"])
def test_what_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="unknown architecture"):
        Architecture.parse(text)
    assert "must be one of" in KNOWN_ARCHITECTURE.broken_by(text)


@pytest.mark.parametrize(
    ("nodes", "image", "runs"),
    [
        ("amd64", "amd64", True),
        ("amd64", "amd64/v1", True),
        ("amd64", "amd64/v2", False),
        ("amd64/v3", "amd64", True),
        ("amd64/v3", "amd64/v2", True),
        ("amd64/v3", "amd64/v3", True),
        ("amd64/v3", "amd64/v4", False),
        ("amd64", "386", False),
        ("arm64", "arm64/v8", True),
        ("arm64", "arm64/v9", False),
        ("arm64/v9", "arm64/v8.2", True),
        ("arm", "arm/v6", True),
        ("arm", "arm/v8", False),
        ("ppc64le", "ppc64le/power9", False),
        ("ppc64le", "ppc64le", True),
        ("amd64", "amd64/odd", False),
    ],
)
def test_nodes_run_their_level_and_those_below(nodes: str, image: str, runs: bool) -> None:
    assert (Architecture.of(nodes).preference_for(Architecture.of(image)) is not None) is runs


def test_the_highest_level_that_runs_is_preferred() -> None:
    nodes = Architecture.of("amd64/v3")
    ranks = [nodes.preference_for(Architecture.of(f"amd64/v{level}")) for level in (1, 2, 3)]
    assert ranks == sorted(ranks, key=lambda rank: rank or (0, 0))
    assert len(ARCHITECTURES) == 9
