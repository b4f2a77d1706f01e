"""What the hooks log of one start of a job is bounded, whatever any number of nodes report; slow and strange nodes are
named, and everything that was reported of a step that failed is in a file, bounded too."""

from __future__ import annotations

import itertools
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from admin.job.events import outcome
from admin.job.log import read_log
from alps.machine import Alps
from jobs.nodereports import SETUP, TEARDOWN, keep_reports, log_failures, log_remarks
from jobs.prepare import prepare
from jobs.takedown import take_down
from tests.unit.cray_standins import StandIns
from udi.accounts import account_of
from udi.command import Deadline
from udi.config import JobsConfig, LogConfig, SiteConfig
from udi.fanout import Answers, FanOutResult
from udi.log import start_log
from udi.nodes import Node, NodeSlots, in_brief, numbered
from udi.nodesummary import MOST_CAUSES, Times, causes
from udi.platform import Allocation, Host
from udi.request import JobRequest, job_request
from udiroot.errors import UdiError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the store must be read with the account's rights")
JOB = "123.sdb"
NONCE = "ab" * 16
BOUND = 8192
Say = Callable[[int], str]
"""What a node prints, by its number; `NONCE` stands for the fan-out's."""


class Crowd(Alps):
    """A Cray of any number of nodes, of which each says what a function makes for its number."""

    def __init__(self, site: SiteConfig, nids: Sequence[int], setup: Say, teardown: Say) -> None:
        super().__init__(site)
        self._nodes = tuple(NodeSlots(numbered(nid), 1) for nid in nids)
        self._says = {"setupRoot": setup, "unsetupRoot": teardown}

    def nodes_of(self, job: str, hosts: Sequence[Host], deadline: Deadline, allocation: str = "") -> Allocation:
        return Allocation(self._nodes, "524")

    def run(
        self, nodes: Sequence[Node], command_line: str, nonce: str, deadline: Deadline, directory: str = ""
    ) -> FanOutResult:
        says = next(say for step, say in self._says.items() if f" {step} " in command_line)
        answers = Answers(nodes, self.identity, nonce)
        for node in nodes:
            for line in says(node.number or 0).replace("NONCE", nonce).splitlines():
                answers.read(line)
        return answers.result("not within 60 seconds")

    def take_out_of_service(self, nodes: Sequence[Node], reasons: Mapping[Node, str], deadline: Deadline) -> None:
        return None


def well(nid: int) -> str:
    return f"UDI-REPORT NONCE {nid} ok {20 + nid % 7} 0 - - clean"


def slow(nid: int) -> str:
    took = 9000 if nid % 500 == 77 else 20
    return f"UDI-REPORT NONCE {nid} ok {took} 0 - - clean\nReply (complete) from nid{nid:05d} exit code: 0"


def alike(nid: int) -> str:
    return f"UDI-REPORT NONCE {nid} failed 5 7 - - loop device /dev/loop{nid % 97} of pid {nid} is taken" + 300 * "x"


def every_kind(nid: int) -> str:
    """No two nodes say the same, and most say much."""
    letters = "".join(chr(97 + (nid >> shift) % 16) for shift in (0, 4, 8, 12))
    if nid % 5 == 0:
        return f"UDI-REPORT NONCE {nid} ok {nid} 0 - - {letters} terminated"
    if nid % 5 == 1:
        return f"UDI-EXIT NONCE {nid} 127 not-started {letters * 90}"
    if nid % 5 == 2:
        return f"{letters}: Segmentation fault\n" + 2 * f"Traceback {letters} \x1b[31m{letters}\n"
    return f"UDI-REPORT NONCE {nid} failed 5 {7 + nid % 2} {JOB} mounts=3 {letters} " + letters * 90


def silent(nid: int) -> str:
    return f"xtxqtcmd: lost nid{nid:05d}"


def contiguous(count: int) -> list[int]:
    return list(range(count))


def scattered(count: int) -> list[int]:
    """As few ranges as can be are of more than one node."""
    return list(range(0, 2 * count, 2))


@pytest.fixture
def cray(tmp_path: Path) -> Iterator[StandIns]:
    made = StandIns(tmp_path)
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield made
    for handler in list(root.handlers):
        root.removeHandler(handler)
    for handler in before:
        root.addHandler(handler)
    root.setLevel(level)


def site_of(cray: StandIns, form: str = "text") -> SiteConfig:
    jobs = JobsConfig(
        state=cray.site.jobs.state,
        nodes=cray.site.jobs.nodes,
        log=cray.site.jobs.log,
        reports=f"{cray.directory}/reports",
        syslog=False,
        max_nodes_out=20,
        max_percent_out=0,
    )
    return replace(cray.site, jobs=jobs, log=LogConfig(format=form))


def logged(site: SiteConfig, nids: Sequence[int], setup: Say, teardown: Say) -> list[str]:
    """Everything that is logged of one start of a job and of its end."""
    request: JobRequest = job_request(site, JOB, account_of("daemon"), "debian:12")
    machine = Crowd(site, nids, setup, teardown)
    start_log(site, "udi-prologue", JOB)
    try:
        prepare(site, machine, request, [], Deadline(120))
    except UdiError as error:
        logging.getLogger("udi.torque").error("start failed, exit code 2: %s", error.message)
    start_log(site, "udi-epilogue", JOB)
    take_down(site, machine, JOB, Deadline(120))
    return Path(site.jobs.log).read_text().splitlines()


def size(lines: Sequence[str]) -> int:
    return sum(len(line) + 1 for line in lines)


@pytest.mark.parametrize(
    ("setup", "teardown", "form"),
    [
        *itertools.product([well, alike, every_kind, silent], [well, alike, every_kind, silent], ["text"]),
        *((say, say, "json") for say in (well, alike, every_kind, silent)),
    ],
)
def test_whatever_the_nodes_report(cray: StandIns, setup: Say, teardown: Say, form: str) -> None:
    site = site_of(cray, form)
    lines = logged(site, scattered(300), setup, teardown)
    assert size(lines) <= BOUND
    assert any("image debian:12 ready on 300 nodes" in line for line in lines) == (setup is well)


@pytest.mark.parametrize(
    ("count", "form"), [(10_000, "text"), (10_000, "json"), pytest.param(50_000, "text", marks=pytest.mark.long)]
)
def test_any_number_of_nodes_of_which_no_two_report_the_same(cray: StandIns, count: int, form: str) -> None:
    """Both steps of a job, without the records of dirty nodes, each of which is a file."""
    site = site_of(cray, form)
    start_log(site, "udi-prologue", JOB)
    nodes = [numbered(nid) for nid in scattered(count)]
    answers = Answers(nodes, lambda node: str(node.number), NONCE)
    for node in nodes:
        for line in every_kind(node.number or 0).replace("NONCE", NONCE).splitlines():
            answers.read(line)
    result = answers.result("not within 60 seconds")
    for step in (SETUP, TEARDOWN):
        log_failures(step, result.errors())
        log_remarks(step, result, "clean")
        keep_reports(site, JOB, step, result)
        status = os.stat(f"{site.jobs.reports}/{JOB}.{step}")
        assert 1000 < status.st_size <= 256 << 10 and status.st_mode & 0o777 == 0o600
    assert size(Path(site.jobs.log).read_text().splitlines()) <= BOUND


def test_a_job_of_a_thousand_good_nodes_is_a_few_lines(cray: StandIns) -> None:
    lines = logged(site_of(cray), contiguous(1000), well, slow)
    words = [line.split(" INFO ", 1)[1] for line in lines]
    assert words == [
        "image debian:12 ready on 1000 nodes; slowest nid00006 26 ms; median 23 ms",
        "teardown: nid[00000-00999]: slowest nid00077 9000 ms, nid00577 9000 ms; median 20 ms",
        "taken down on nid[00000-00999]",
    ]


def test_one_cause_on_many_nodes_is_one_line_and_strange_nodes_are_named(cray: StandIns) -> None:
    def setup(nid: int) -> str:
        if nid in (17, 471):
            return f"UDI-REPORT NONCE {nid} failed 5 7 - - no squashfs in this kernel"
        return alike(nid) if nid < 500 else well(nid)

    site = site_of(cray)
    lines = [line for line in logged(site, contiguous(1000), setup, well) if " ERROR setup: " in line]
    assert len(lines) == 2
    assert "nid[00000-00016,00018-00470,00472-00499]: loop device /dev/loop0 of pid 0 is taken" in lines[0]
    assert "(and 497 texts like it)" in lines[0]
    assert lines[1].endswith("ERROR setup: nid[00017,00471]: no squashfs in this kernel")
    kept = Path(f"{site.jobs.reports}/{JOB}.setup").read_text()
    assert kept.startswith("1000 nodes asked, 1000 reported\n") and "nid[00017,00471]: no squashfs" in kept


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_start_that_fails_names_its_stragglers(cray: StandIns, form: str) -> None:
    """Slow nodes and silent ones, however many other causes there are: in the log, and where a job is shown."""

    def setup(nid: int) -> str:
        return "" if nid in (8, 9, 40) else slow(nid) if nid > 50 else every_kind(nid)

    site = site_of(cray, form)
    lines = logged(site, contiguous(100), setup, well)
    assert size(lines) <= BOUND
    late = "nid[00002,00007-00009,00012,00017,00022,00027,00032,00037,00040,00042,00047]"
    slowest = "slowest nid00077 9000 ms, nid00050 50 ms, nid00045 45 ms; median 20 ms"
    words = f"77 of 100 nodes reported; {slowest}; no answer: {late}"
    found = outcome(read_log(site.jobs.log, JOB).events)
    assert found.starts and found.setup == words
    if form == "json":
        (row,) = [row for row in map(json.loads, lines) if row["message"] == "setup reported"]
        assert (row["silent"], row["silent_count"], row["reported"], row["count"]) == (late, 13, 77, 100)
    else:
        assert sum(f" INFO setup: {words}" in line for line in lines) == 1


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_log_of_json_tells_a_person_the_same(cray: StandIns, form: str) -> None:
    """What the fields have, `udi-admin job` shows in the words of the other form."""
    site = site_of(cray, form)
    logged(site, contiguous(20), silent, slow)
    logged(site, contiguous(20), well, silent)
    events = read_log(site.jobs.log, JOB).events
    kinds: tuple[str, ...] = (
        "setup: 0 of 20 nodes reported; no answer: nid[00000-00019]",
        "taken down on nid[00000-00019]",
    )
    kinds += ("teardown: nid[00000-00019]: slowest nid00000 20 ms; median 20 ms",)
    assert [event.message for event in events if event.message in kinds] == [kinds[0], kinds[2], kinds[1]]
    found = outcome(events)
    assert (found.dirty, found.teardown) == ("nid[00000-00019]", "nid[00000-00019] not clean: nid[00000-00019]")


def test_what_the_machine_prints_is_logged_where_nodes_fail(cray: StandIns) -> None:
    lines = logged(site_of(cray), contiguous(100), silent, silent)
    assert sum("printed beside the reports: xtxqtcmd: lost nid00000" in line for line in lines) == 2


def test_a_line_of_json_has_what_programs_need(cray: StandIns) -> None:
    rows = [json.loads(line) for line in logged(site_of(cray, "json"), contiguous(3), well, alike)]
    assert {(row["job"], row["program"]) for row in rows} == {(JOB, "udi-prologue"), (JOB, "udi-epilogue")}
    ready = next(row for row in rows if row["message"].startswith("image debian:12 ready"))
    assert (ready["phase"], ready["nodes"], ready["count"]) == ("setup", "nid[00000-00002]", 3)
    assert (ready["level"], ready["median_ms"], ready["max_ms"], ready["slowest"]) == ("INFO", 21, 22, {"nid00002": 22})
    dirty = next(row for row in rows if "not known to be clean" in row["message"])
    assert dirty["phase"] == "teardown" and dirty["count"] == 1 and "loop device" in dirty["cause"]


def test_reports_that_cannot_be_kept_stop_nobody(cray: StandIns) -> None:
    Path(f"{cray.directory}/reports").write_text("a file")
    lines = logged(site_of(cray), contiguous(10), silent, well)
    assert any("what the nodes reported is not kept" in line for line in lines)
    assert any(line.endswith("taken down on nid[00000-00009]") for line in lines), (
        "the set-up was undone, and nobody else had to"
    )


def test_reports_that_another_hook_removes_meanwhile(cray: StandIns, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each hook removes the oldest ones, which are the same for all."""
    directory = cray.directory / "reports"
    directory.mkdir()
    for number in range(110):
        (directory / f"{number}.sdb.setup").write_text("")
    listed = os.scandir

    def scandir(path: str) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
        found = list(listed(path))
        for entry in found:
            if entry.name.startswith("7") and os.fspath(path) == str(directory):
                os.unlink(entry.path)
        return nullcontext(iter(found))

    monkeypatch.setattr(os, "scandir", scandir)
    lines = logged(site_of(cray), contiguous(4), silent, well)
    assert sum("what each node reported is in" in line for line in lines) == 1
    assert not [line for line in lines if "is not kept" in line]


def test_only_the_newest_reports_are_kept(cray: StandIns) -> None:
    directory = cray.directory / "reports"
    directory.mkdir()
    for number in range(120):
        path = directory / f"{number}.sdb.setup"
        path.write_text("")
        os.utime(path, (number, number))
    logged(site_of(cray), contiguous(4), silent, well)
    left = {path.name for path in directory.iterdir()}
    assert len(left) == 100 and f"{JOB}.setup" in left and "119.sdb.setup" in left and "20.sdb.setup" not in left


def test_nodes_in_brief() -> None:
    assert in_brief([numbered(nid) for nid in range(50_000)]) == "nid[00000-49999]"
    text = in_brief(numbered(nid) for nid in range(0, 50_000, 2))
    assert len(text) <= 160 and text.startswith("nid[00000,00002,") and " " not in text
    shown, more = text.rsplit(",+", 1)
    assert shown.count(",") + 1 + int(more) == 25_000
    odd = in_brief([Node(f"{chr(97 + n % 26)}{'x' * 60}{n // 26}-b") for n in range(200)])
    assert len(odd) <= 160 and odd.endswith(",+184")


def test_causes_and_times() -> None:
    texts = {numbered(nid): f"{'abcdefgh'[nid % 8]} is broken" for nid in range(80)}
    found = causes(texts)
    assert len(found) == MOST_CAUSES + 1 and sum(len(cause.nodes) for cause in found) == 80
    assert str(found[-1]) == "d is broken (and 4 texts like it)"
    times = Times.of({numbered(1): 10, numbered(2): 15, numbered(3): 100, numbered(4): 200})
    assert str(Times.of({numbered(1): 10})) == "10 ms" and times.most == 200
    assert times.as_fields()["slowest"] == {"nid00004": 200}
