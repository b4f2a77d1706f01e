"""Slurm's lists of hosts, expanded as Slurm's own `scontrol show hostnames` does."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slurm_hooks.hostlist import counts, expand, hosts
from udi.platform import Host
from udiroot.errors import UsageError

SCONTROL = shutil.which("scontrol", path="/usr/bin:/usr/local/bin")
NAME = st.from_regex(r"[a-z]{1,6}-?[a-z]{1,3}", fullmatch=True)


@st.composite
def ranges(draw: Callable[[st.SearchStrategy[int]], int]) -> str:
    first = draw(st.integers(0, 120))
    width = draw(st.integers(1, 4))
    last = first + draw(st.integers(0, 12))
    return f"{first:0{width}d}-{last:0{width}d}" if draw(st.integers(0, 2)) else f"{first:0{width}d}"


BRACKETS = st.lists(ranges(), min_size=1, max_size=3).map(lambda found: f"[{','.join(found)}]")
ITEM = st.one_of(NAME, st.tuples(NAME, BRACKETS).map("".join), st.tuples(NAME, BRACKETS, NAME, BRACKETS).map("".join))
LIST = st.lists(ITEM, min_size=1, max_size=4).map(",".join)


@pytest.fixture(scope="module")
def configuration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slurm's commands want a slurm.conf, whatever they are to do."""
    path = tmp_path_factory.mktemp("slurm") / "slurm.conf"
    path.write_text("ClusterName=x\nSlurmctldHost=localhost\nNodeName=n1\nPartitionName=all Nodes=ALL\n")
    return path


@pytest.mark.skipif(SCONTROL is None, reason="needs Slurm's scontrol")
@settings(max_examples=60)
@given(LIST)
def test_as_slurm_expands_it(configuration: Path, text: str) -> None:
    words, environment = [SCONTROL or "", "show", "hostnames", text], {"SLURM_CONF": str(configuration)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert list(expand(text)) == done.stdout.split()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("n1", "n1"),
        ("b2,a1", "b2 a1"),
        ("n[1-3,05-06]", "n1 n2 n3 n05 n06"),
        ("r[1-2]n[8-9],m", "r1n8 r1n9 r2n8 r2n9 m"),
        ("n[098-101]", "n098 n099 n100 n101"),
        ("host.site.org", "host.site.org"),
    ],
)
def test_order_and_width(text: str, expected: str) -> None:
    assert " ".join(expand(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "n1,",
        "n[1-",
        "n[1-2",
        "n1]",
        "n[]",
        "n[a]",
        "n[3-1]",
        "n[1-2000000]",
        "n[0-999]x[0-9999]",
        "n;1",
        "n 1",
        "n1\n",
    ],
)
def test_what_is_no_list(text: str) -> None:
    with pytest.raises(UsageError, match="not a list of hosts"):
        expand(text)


@given(st.text("n12[]-,. \n", max_size=30))
def test_any_text_is_a_list_or_is_refused(text: str) -> None:
    try:
        assert all(expand(text))
    except UsageError:
        return


def test_counts() -> None:
    assert counts("2,1") == (2, 1)
    assert counts("4(x3),2,1(x2)") == (4, 4, 4, 2, 1, 1)
    for wrong in ("", "0", "2(x0)", "2(x9999999)", "2,", "a", "2(y3)"):
        with pytest.raises(UsageError):
            counts(wrong)


def test_hosts_with_their_slots() -> None:
    assert hosts("n[1-2]", "2,1") == (Host("n1", 2), Host("n2", 1))
    assert hosts("n1", "2(x2)") == (Host("n1", 1),), "the nodes of a step, and the numbers of its job"
    assert hosts("n1", "") == (Host("n1", 1),)
