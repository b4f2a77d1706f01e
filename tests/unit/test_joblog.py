"""The hooks' log, read again: its forms of a line, its rotated files, and how much of it is read."""

from __future__ import annotations

import gzip
import logging
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.job.events import condensed, outcome
from admin.job.log import Event, parse_line, read_log
from udi.config import JobsConfig, SiteConfig, StoreConfig
from udi.log import start_log

LINE = "2026-11-26 19:29:{:02},123 udi-prologue[4711] job {} {} {}"


def line(second: int, message: str, job: str = "1.sdb", level: str = "INFO") -> str:
    return LINE.format(second, job, level, message) + "\n"


def test_what_the_hooks_write_is_read(tmp_path: Path) -> None:
    """By the hooks' own log, so that a change of its form is noticed here."""
    path = tmp_path / "hooks.log"
    site = SiteConfig(store=StoreConfig(path="/"), jobs=JobsConfig(log=str(path), syslog=False))
    start_log(site, "udi-prologue", "12[3].sdb")
    try:
        log = logging.getLogger("udi.jobs")
        log.info("image %s ready on %d nodes; slowest %s, %d ms", "debian:12", 2, "nid00013", 40)
        log.error("two\nlines", exc_info=ValueError("x"))
    finally:
        for handler in list(logging.getLogger().handlers):
            logging.getLogger().removeHandler(handler)
            handler.close()
    found = read_log(str(path), "12[3].sdb")
    assert [(event.program, event.level) for event in found.events] == [
        ("udi-prologue", "INFO"),
        ("udi-prologue", "ERROR"),
    ]
    assert outcome(found.events).image == "debian:12" and found.remark == ""
    assert abs(found.events[0].time - path.stat().st_mtime) < 60


def test_rotated_files_are_read_in_order_and_others_are_not(tmp_path: Path) -> None:
    path = tmp_path / "hooks.log"
    path.write_text(line(30, "third") + line(31, "no", job="11.sdb") + line(32, "no", job="1.other"))
    (tmp_path / "hooks.log.1").write_text(line(20, "second"))
    with gzip.open(tmp_path / "hooks.log-20261125.gz", "wt") as stream:
        stream.write(line(10, "first"))
    (tmp_path / "hooks.log.bak").write_text(line(1, "not a rotated one"))
    (tmp_path / "other.log.1").write_text(line(1, "another log"))
    for age, name in enumerate(("hooks.log", "hooks.log.1", "hooks.log-20261125.gz")):
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    assert [event.message for event in read_log(str(path), "1.sdb").events] == ["first", "second", "third"]
    (tmp_path / "hooks.log-20261125.gz").write_bytes(b"\x1f\x8bdamaged")
    found = read_log(str(path), "1.sdb")
    assert [event.message for event in found.events] == ["second", "third"] and "cannot be read" in found.remark


def test_no_more_than_the_bound_is_read(tmp_path: Path) -> None:
    path = tmp_path / "hooks.log"
    path.write_text(line(1, "old") + "x" * 5000 + "\n" + line(30, "new"))
    (tmp_path / "hooks.log.1").write_text(line(0, "older"))
    found = read_log(str(path), "1.sdb", 1000)
    assert [event.message for event in found.events] == ["new"] and "not read" in found.remark


def test_a_log_that_is_not_there() -> None:
    assert "syslog only" in read_log("", "1.sdb").remark
    assert "there is no /nowhere/hooks.log" in read_log("/nowhere/hooks.log", "1.sdb").remark


def test_lines_of_json() -> None:
    words = '"program": "udi-epilogue", "job": "1.sdb", "level": "info", "message": "taken \\u001b[31m", "x": 1'
    text = f'{{"time": 5, {words}}}'
    assert parse_line(text) == Event(5.0, "udi-epilogue", "1.sdb", "INFO", "taken \\x1b[31m")
    for damaged in ("{", "{}", "[]", '{"time": 5, "job": 1}', text.replace('"time": 5', '"time": "then"')):
        assert parse_line(damaged) is None


@given(st.text())
def test_any_line_is_an_event_or_none(text: str) -> None:
    parse_line(text)
    parse_line("{" + text)
    parse_line(LINE.format(1, "1.sdb", "INFO", text))


def events(*messages: str, program: str = "udi-prologue") -> list[Event]:
    return [Event(float(number), program, "1.sdb", "INFO", text) for number, text in enumerate(messages, 1)]


def test_a_step_on_many_nodes_is_one_line() -> None:
    found = condensed(
        events(
            *(f"setup: nid{nid:05d}: {nid} ms" for nid in range(10, 14)), "image x ready on 4 nodes; slowest a, 1 ms"
        )
    )
    assert [event.message for event in found] == [
        "setup: nid[00010-00013] (4 nodes): 10 to 13 ms",
        "image x ready on 4 nodes; slowest a, 1 ms",
    ]


@pytest.mark.parametrize(
    ("program", "message", "owner"),
    [
        ("udi-prologue", "start failed, exit code 1: no image x", "user"),
        ("udi-prologue", "start failed, exit code 2: the image store is away", "site"),
        ("udi-prologue", "start failed, exit code 2: setup on nid00012: no answer", "node"),
        ("udi-slurm-prolog", "start failed: no such volume", "user"),
        ("udi-slurm-prolog", "start failed, exit code 7: no loop device", "node"),
        ("udi-slurm-prolog", "Prolog cannot be run: node.shared", "site"),
    ],
)
def test_whose_fault_a_failed_start_is(program: str, message: str, owner: str) -> None:
    found = outcome(events(message, program=program))
    assert found.last_failure and found.last_failure.owner == owner
    later = outcome(events(message, "image x ready on 1 nodes; slowest a, 1 ms", program=program))
    assert later.last_failure is None and len(later.starts) == 1


def test_a_second_start_makes_an_earlier_teardown_old() -> None:
    ready = "image x:1 ready on 2 nodes; slowest nid00012, 3 ms"
    first = outcome(events(ready, "taken down on nid[00012-00013]; dirty: nid00013"))
    assert (first.dirty, first.teardown) == ("nid00013", "nid[00012-00013] not clean: nid00013")
    again = outcome(events(ready, "taken down on nid[00012-00013]", ready))
    assert (again.taken, again.teardown, again.nodes) == (0.0, "", "nid[00012-00013]")
