"""docs/security.md: every threat names a test that shows what stops it, and every test that it names is there."""

from __future__ import annotations

import pytest

from tests import named

_ROWS = named.rows("security.md")


@pytest.mark.parametrize("row", _ROWS, ids=lambda row: row[0][:50])
def test_a_threat_names_tests_that_exist(row: list[str]) -> None:
    assert len(row) == 3
    assert named.tests(row[2])
    assert named.missing(row[2]) == []


def test_there_are_threats_at_all() -> None:
    assert len(_ROWS) > 40
