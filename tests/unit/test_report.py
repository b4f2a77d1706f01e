"""A node's report: fields for programs and words for people in one bounded line; nothing else is taken for one."""

from __future__ import annotations

import os

from hypothesis import example, given
from hypothesis import strategies as st

from udiroot.errors import NotFound, TeardownIncomplete, printable
from udiroot.report import NodeReport

NONCE = "ab" * 16
TEXT = st.text(st.characters(blacklist_categories=["Cs"]))
NODE = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
JOB = st.from_regex(r"[0-9]{1,12}(\[[0-9]{0,8}\])?(\.[A-Za-z0-9][A-Za-z0-9.-]{0,100})?", fullmatch=True)
COUNT = st.builds("{}={}".format, st.sampled_from(["mounts", "loops", "processes", "files"]), st.integers(0, 10**6))
LEFT = st.lists(COUNT, max_size=5).map(tuple)
REPORT = st.builds(
    NodeReport, NODE, st.integers(0, 255), st.integers(0, 10**6), TEXT, st.lists(JOB, max_size=12).map(tuple), LEFT
)


def fields(report: NodeReport) -> tuple[object, ...]:
    return report.node, report.code, report.milliseconds, report.jobs, report.left, report.words


@given(REPORT)
def test_every_report_fits_one_line_and_is_read_back(report: NodeReport) -> None:
    line = report.line(NONCE)
    assert len(line.encode("ascii")) < 512
    assert line.count("\n") == 1 and line.endswith("\n")
    read = NodeReport.parse(line, NONCE)
    assert read is not None
    assert (read.node, read.code, read.milliseconds, read.left) == (*fields(report)[:3], report.left)
    assert set(read.jobs) <= set(report.jobs)
    assert printable(report.words, 400).startswith(read.words)
    assert NodeReport.parse(line, "cd" * 16) is None


@given(NODE, st.integers(0, 255), st.lists(JOB, max_size=2).map(tuple), st.text("abc ;:.", max_size=50).map(str.strip))
def test_a_short_report_is_read_back_exactly(node: str, code: int, jobs: tuple[str, ...], words: str) -> None:
    report = NodeReport(node, code, 5, words, tuple(job[:40] for job in jobs), ("mounts=1",))
    read = NodeReport.parse(report.line(NONCE), NONCE)
    assert read is not None
    assert fields(read) == fields(report)


def test_words_are_cut_first_and_then_complete_job_ids_are_left_out() -> None:
    jobs = tuple(f"{number}.{'x' * 40}" for number in range(9))
    report = NodeReport("n1", 8, 5, "w" * 400, jobs, ("mounts=3",))
    read = NodeReport.parse(report.line(NONCE), NONCE)
    assert read is not None
    assert read.jobs == jobs[: len(read.jobs)]
    assert 8 <= len(read.jobs) <= 9
    assert read.left == ("mounts=3",)
    few = NodeReport.parse(NodeReport("n1", 8, 5, "w" * 400, jobs[:3], ("mounts=3",)).line(NONCE), NONCE)
    assert few is not None
    assert few.jobs == jobs[:3]
    assert 200 < len(few.words) < 400


def test_the_line_as_it_is_documented() -> None:
    report = NodeReport("12", 8, 31, "left by 1.sdb: 3 mounts", ("1.sdb", "2[4].sdb"), ("mounts=3", "loops=1"))
    line = f"UDI-REPORT {NONCE} 12 failed 31 8 1.sdb,2[4].sdb mounts=3,loops=1 left by 1.sdb: 3 mounts\n"
    assert report.line(NONCE) == line
    assert NodeReport("host-1.site", 0, 7, "clean").line(NONCE) == f"UDI-REPORT {NONCE} host-1.site ok 7 0 - - clean\n"
    assert NodeReport("12", 0, 7, "").line(NONCE) == f"UDI-REPORT {NONCE} 12 ok 7 0 - -\n"


def test_what_cannot_be_a_job_or_a_count_is_left_out() -> None:
    report = NodeReport("12", 8, 1, "x", ("1 2", "-", "", "a,b", "7.sdb"), ("mounts=x", "files=1", "a b=1"))
    read = NodeReport.parse(report.line(NONCE), NONCE)
    assert read is not None
    assert (read.jobs, read.left) == (("7.sdb",), ("files=1",))


@given(TEXT)
@example(f"{NONCE} 12 ok 7 0 -")
@example(f"{NONCE} 12 ok 7 1 - - x")
@example(f"{NONCE} 12 failed 7 0 - - x")
@example(f"{NONCE} 12 failed 7 256 - - x")
@example(f"{NONCE} 12 failed 07 5 - - x")
@example(f"{NONCE} 12 failed 7 5 1.sdb, - x")
@example(f"{NONCE} 12 failed 7 5 - mounts x")
@example(f"{NONCE} .12 ok 7 0 - - x")
@example(f"{NONCE} {'n' * 65} ok 7 0 - - x")
@example(f"{NONCE} 12 ok 7 0 - - {'x' * 500}")
def test_other_lines_are_no_reports(text: str) -> None:
    assert NodeReport.parse(f"UDI-REPORT {text}", NONCE) is None
    assert NodeReport.parse(text, NONCE) is None


@given(REPORT, st.data())
def test_a_line_with_one_change_is_the_report_that_it_says_or_none(report: NodeReport, data: st.DataObject) -> None:
    line = report.line(NONCE)
    at = data.draw(st.integers(0, len(line) - 1))
    changed = line[:at] + data.draw(st.characters(max_codepoint=126)) + line[at + 1 :]
    read = NodeReport.parse(changed, NONCE)
    if read is not None:
        again = NodeReport.parse(read.line(NONCE), NONCE)
        assert again is not None
        assert fields(again)[:3] == fields(read)[:3]


def test_an_error_s_fields_are_in_its_report() -> None:
    error = TeardownIncomplete("left", "look", jobs=("1.sdb",), left=("files=1",))
    assert fields(NodeReport.of_error("n1", 3, error)) == ("n1", 8, 3, ("1.sdb",), ("files=1",), "left (look)")
    assert fields(NodeReport.of_error("n1", 3, NotFound("none"))) == ("n1", 3, 3, (), (), "none")


def test_it_is_sent_in_one_line() -> None:
    reading, writing = os.pipe()
    NodeReport("n1", 0, 3, "clean").send(NONCE, writing)
    os.close(writing)
    with open(reading) as stream:
        assert stream.read() == NodeReport("n1", 0, 3, "clean").line(NONCE)
