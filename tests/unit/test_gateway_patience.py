"""Trying again: how often, how long, and when not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from gateway.sources.patience import Passing, Patience, retry_after
from udi.command import Deadline
from udiroot.errors import NotFound, UdiError, UpstreamFailed

NOON = datetime(2024, 2, 29, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        (" 17 ", 17),
        ("9" * 5000, 999_999_999),
        (format_datetime(NOON + timedelta(seconds=90), usegmt=True), 90),
        (format_datetime(NOON - timedelta(seconds=90), usegmt=True), 0),
        ("Thursday, 29-Feb-24 12:01:00 GMT", 60),
        ("Thu Feb 29 12:01:00 2024", 60),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("\u0665", None),
        ("Thu, 99 Feb 2024 12:00:00 GMT", None),
        ("Fri, 29 Feb 99999 12:00:00 GMT", None),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    assert retry_after(value, format_datetime(NOON, usegmt=True)) == seconds


def test_a_moment_without_the_servers_own_clock() -> None:
    moment = datetime.now(UTC) + timedelta(seconds=100)
    for date in ("", "yesterday"):
        assert 95 < (retry_after(format_datetime(moment, usegmt=True), date) or 0) <= 100


class Request:
    """A request that fails with each of these errors, one after the other."""

    def __init__(self, *failures: UdiError, seconds: float = 1000, longest: float = float("inf")) -> None:
        self._failures = list(failures)
        self.waits: list[float] = []
        self._patience = Patience(Deadline(seconds), longest, lambda wait, failure: self.waits.append(wait))

    def run(self) -> str:
        for attempt in self._patience.attempts():
            with attempt:
                if self._failures:
                    raise self._failures.pop(0)
                return "done"
        raise AssertionError


def test_waits_are_those_that_were_asked_for() -> None:
    request = Request(Passing("busy", wait=7), Passing("lost"), Passing("busy", wait=0))
    assert request.run() == "done"
    assert request.waits == [7, 0.6, 0]


def test_the_last_failure_is_reported_after_four_attempts() -> None:
    request = Request(*(Passing(f"busy {number}", wait=1) for number in range(9)))
    with pytest.raises(Passing, match="busy 3"):
        request.run()
    assert request.waits == [1, 1, 1]


def test_other_failures_are_final() -> None:
    for failure in (NotFound("none"), UpstreamFailed("down")):
        with pytest.raises(type(failure)):
            Request(failure).run()


@pytest.mark.parametrize("bounds", [{"seconds": 30}, {"longest": 30}])
def test_a_wait_that_is_too_long_is_not_begun(bounds: dict[str, float]) -> None:
    request = Request(Passing("rate-limiting", wait=3600), **bounds)
    with pytest.raises(Passing) as raised:
        request.run()
    assert request.waits == [] and raised.value.hint == "it asks to try again in 3600 s"
