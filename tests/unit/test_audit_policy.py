"""What the site's policy makes of a report, and reports as files."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udi.audit import AuditConfig, Level, judge
from udi.audit_report import MAX_FINDINGS, SEVERITIES, Finding, Report, Summary, read_summary
from udiroot.errors import ConfigError, ImageInvalid, NotPermitted

ID = "ab" * 32
SCANNED = Summary(id=ID, time=5, scanner="s 1", feed="f 2", basis="b", packages=3, unread=("one thing",))


def config(**values: object) -> AuditConfig:
    return AuditConfig(command=("/scanner",), **values)  # type: ignore[arg-type]


def report(*severities: str) -> Report:
    return Report.of(SCANNED, [Finding(id=f"C-{n}", package="p", severity=s) for n, s in enumerate(severities)])


@pytest.mark.parametrize(
    ("found", "warn", "refuse", "level"),
    [
        ((), "unknown", "unknown", "clean"),
        (("high",), "high", "never", "warn"),
        (("medium",), "high", "never", "note"),
        (("critical",), "never", "never", "note"),
        (("critical",), "never", "critical", "refuse"),
        (("high", "low"), "low", "critical", "warn"),
        (("unknown",), "unknown", "never", "warn"),
        (("negligible", "high"), "critical", "high", "refuse"),
    ],
)
def test_the_worst_finding_decides(found: tuple[str, ...], warn: str, refuse: str, level: Level) -> None:
    assert judge(config(warn=warn, refuse=refuse), report(*found).summary).level == level


@pytest.mark.parametrize("unscanned", ["note", "warn", "refuse"])
@pytest.mark.parametrize("summary", [None, Summary(id=ID, time=1, error="it broke")])
def test_what_was_not_scanned_counts_as_the_site_says(unscanned: str, summary: Summary | None) -> None:
    verdict = judge(config(unscanned=unscanned, warn="never"), summary)
    assert verdict.level == unscanned and "has not been scanned" in verdict.words
    assert ("it broke" in verdict.words) == (summary is not None)


def test_without_a_scanner_nothing_is_judged() -> None:
    assert judge(AuditConfig(refuse="unknown"), report("critical").summary).level == ""


def test_what_users_read() -> None:
    worst = Finding(id="CVE-1", package="open\x1bssl", version="3.0", fixed="3.1", severity="critical")
    others = [Finding(id=f"CVE-2{n}", package="a", severity="high") for n in range(3)]
    summary = Report.of(SCANNED, [*others, Finding(id="x", severity="low"), worst]).summary
    warned = judge(config(), summary)
    assert warned.warning("app:1") == (
        "image app:1 has 1 critical and 3 high findings (CVE-1 in open\\x1bssl 3.0, fixed in 3.1);"
        " udi inspect app:1 lists what is known"
    )
    warned.require("app:1")
    refused = judge(config(refuse="critical"), summary)
    with pytest.raises(NotPermitted) as caught:
        refused.require("app:1")
    assert caught.value.message == (
        "image app:1 has 1 critical finding (CVE-1 in open\\x1bssl 3.0, fixed in 3.1),"
        " which this site refuses for new jobs"
    )
    assert "udi inspect app:1" in caught.value.hint and refused.warning("app:1") == ""


def test_a_command_must_be_an_absolute_path() -> None:
    for words in (("scanner",), ("/scanner", "")):
        with pytest.raises(ConfigError, match="command"):
            AuditConfig(command=words).check()


def test_findings_are_in_order_counted_and_bounded() -> None:
    many = report(*["low"] * (MAX_FINDINGS + 5), "critical", "unknown")
    assert many.findings[0].severity == "critical" and len(many.findings) == MAX_FINDINGS
    counts = many.summary.counts
    assert (counts.low, counts.critical, counts.unknown) == (MAX_FINDINGS + 5, 1, 1)
    assert many.summary.worst == many.findings[0]


@given(
    texts=st.lists(st.text(max_size=30), min_size=4, max_size=4),
    severities=st.lists(st.sampled_from(SEVERITIES), max_size=5),
    error=st.text(max_size=20),
)
def test_a_report_is_read_as_it_was_written(texts: list[str], severities: list[str], error: str) -> None:
    one, two, three, four = texts
    findings = [Finding(id=one, package=two, version=three, summary=four, severity=each) for each in severities]
    written = Report.of(Summary(id=ID, time=9, scanner=one, feed=two, error=error, unread=(three,)), findings)
    text = written.to_text().encode()
    assert Report.from_text(text) == written
    assert read_summary(text.partition(b"\n")[0]) == written.summary


@given(st.binary(max_size=200))
def test_any_bytes_are_no_report(text: bytes) -> None:
    with pytest.raises(ImageInvalid):
        Report.from_text(text)


@pytest.mark.parametrize(
    "change",
    [{"time": "5"}, {"counts": {"high": True}}, {"counts": []}, {"unread": "x"},
     {"worst": {"severity": "bad", "id": "x"}},
     {"worst": {}}, {"more": 1}, {"worst": 5}],
)  # fmt: skip
def test_a_damaged_summary_is_refused(change: dict[str, object]) -> None:
    document = json.loads(report("high").to_text().splitlines()[0]) | change
    with pytest.raises(ImageInvalid):
        read_summary(json.dumps(document).encode())
