"""docs/security.md: every threat names a test that shows what stops it, and every test that it names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEST = re.compile(r"`([\w/]+\.py)::(\w+)`")


def _rows() -> list[str]:
    """The rows of tables that have a column of tests."""
    rows, has_tests = [], False
    for line in (ROOT / "docs/security.md").read_text().splitlines():
        if not line.startswith("|"):
            has_tests = False
        elif line.endswith("| test |"):
            has_tests = True
        elif has_tests and not line.startswith("| ---"):
            rows.append(line)
    return rows


@pytest.mark.parametrize("row", _rows(), ids=lambda row: row.split("|")[1].strip()[:50])
def test_a_threat_names_tests_that_exist(row: str) -> None:
    assert row.count("|") == 4
    named = TEST.findall(row.split("|")[3])
    assert named
    for path, name in named:
        tree = ast.parse((ROOT / "tests" / path).read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{path}::{name}"


def test_there_are_threats_at_all() -> None:
    assert len(_rows()) > 40
