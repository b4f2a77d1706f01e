"""Counting failed starts in a job's comment: each start once, those in a row together, from the beginning after a
release."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_hooks.starts import NONE, Failures, failures_in


@given(st.integers(0, 10**6), st.integers(1, 1000), st.booleans(), st.text(max_size=60), st.text("ab; (x", max_size=20))
def test_what_is_written_is_read_again(start: int, count: int, held: bool, why: str, others: str) -> None:
    failures = Failures(start, count, held)
    comment = f"{others}; {failures.text(why)}" if others else failures.text(why)
    assert failures_in(comment) == (others, failures)


@given(st.text(max_size=100))
def test_any_comment_is_the_sites(text: str) -> None:
    others, failures = failures_in(text)
    assert failures == NONE or others != text


@pytest.mark.parametrize(
    ("before", "start", "after"),
    [
        (NONE, 0, Failures(0, 1, False)),
        (NONE, 7, Failures(7, 1, False)),
        (Failures(0, 1, False), 0, Failures(0, 1, False)),
        (Failures(0, 1, False), 1, Failures(1, 2, False)),
        (Failures(1, 2, False), 2, Failures(2, 3, True)),
        (Failures(2, 3, True), 2, Failures(2, 3, True)),
        (Failures(2, 3, True), 3, Failures(3, 1, False)),
        (Failures(1, 2, False), 3, Failures(3, 1, False)),
    ],
)
def test_one_failure_after_another(before: Failures, start: int, after: Failures) -> None:
    assert before.followed_by(start, 3) == after


def test_one_start_may_be_all() -> None:
    assert NONE.followed_by(0, 1) == Failures(0, 1, True)
