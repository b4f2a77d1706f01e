"""docs/scanner.py: versions as the package managers themselves order them."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("scanner", Path(__file__).parents[2] / "docs/scanner.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCANNER = _load()
SIGNS = {-1: "lt", 0: "eq", 1: "gt"}
PARTS = st.lists(
    st.sampled_from(["0", "1", "9", "10", "007", ".", "~", "+", "a", "b", "rc", "Z"]), min_size=1, max_size=6
)
UPSTREAM = PARTS.map(lambda parts: "1" + "".join(parts))
DPKG = st.tuples(st.sampled_from(["", "0:", "2:"]), UPSTREAM, st.sampled_from(["", "-1", "-0", "-1~deb12u1", "-1+b1"]))


@settings(max_examples=250)
@given(one=DPKG.map("".join), other=DPKG.map("".join))
def test_as_dpkg(one: str, other: str) -> None:
    found = SIGNS[SCANNER.compare_dpkg(one, other)]
    assert subprocess.run(["dpkg", "--compare-versions", one, found, other], check=False).returncode == 0, (one, other)


RPM = st.lists(st.sampled_from(["0", "1", "10", "007", ".", "_", "~", "^", "a", "rc", "Z"]), min_size=1, max_size=6)


@settings(max_examples=20)
@given(st.lists(st.tuples(RPM.map("".join), RPM.map("".join)), min_size=40, max_size=40))
def test_as_rpm(pairs: list[tuple[str, str]]) -> None:
    lua = "".join(f'print(rpm.vercmp("{one}", "{other}"), "")' for one, other in pairs)
    done = subprocess.run(["rpm", "--eval", f"%{{lua:{lua}}}"], capture_output=True, check=True, text=True)
    assert [SCANNER.compare_rpm(one, other) for one, other in pairs] == list(map(int, done.stdout.split())), pairs


@pytest.mark.parametrize(
    "ordered",
    [
        ["1.0_alpha", "1.0_beta", "1.0_pre1", "1.0_pre2", "1.0_rc1", "1.0", "1.0_git20240101", "1.0_p1", "1.0.1"],
        ["1.1.1s-r0", "1.1.1s-r1", "1.1.1t-r0", "3.0.8-r0", "3.0.8-r10", "3.1"],
        ["1.02", "1.2", "1.10", "2", "10"],
        ["1.2", "1.2a", "1.2b", "1.2.1"],
    ],
)
def test_as_apk_orders(ordered: list[str]) -> None:
    """By apk-package(5): no program of Debian compares them."""
    for number, one in enumerate(ordered):
        assert SCANNER.compare_apk(one, one) == 0
        for other in ordered[number + 1 :]:
            assert (SCANNER.compare_apk(one, other), SCANNER.compare_apk(other, one)) == (-1, 1), (one, other)
