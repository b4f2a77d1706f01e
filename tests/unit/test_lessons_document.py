"""docs/lessons.md: every row says where it was seen, and names tests that are there, or why it does not apply here."""

from __future__ import annotations

import re

import pytest

from tests import named

_ROWS = named.rows("lessons.md")
_SEEN = re.compile(r"[\w.-]+/[\w.-]+(?:#\d+| [0-9a-f]{7}| PR \d+| \d[\d.]*)|(?:CVE|GHSA)-[\w-]+|\(no thread\)")
_ELSEWHERE = "Does not apply: "


@pytest.mark.parametrize("row", _ROWS, ids=lambda row: row[0][:50])
def test_a_lesson_has_a_test_or_a_reason(row: list[str]) -> None:
    assert len(row) == 3
    assert _SEEN.search(row[0]), "where it was seen"
    if row[1].startswith(_ELSEWHERE):
        assert row[2] == "—"
    else:
        assert named.tests(row[2])
        assert named.missing(row[2]) == []


def test_a_name_that_is_no_test_is_found() -> None:
    here = "`unit/test_lessons_document.py::"
    wrong = f"{here}test_nothing`, `unit/test_none.py::test_it`, `soak/__main__.py::main`"
    assert named.missing(f"{here}test_a_lesson_has_a_test_or_a_reason`") == []
    assert named.missing(wrong) == [name.strip("`") for name in wrong.split(", ")]


def test_each_chapter_has_its_rows() -> None:
    assert len(_ROWS) == len({row[0] for row in _ROWS}) > 100
