"""`udi-admin` and `udi-nodehealth`: dirty nodes from their marking to their return."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import click
import pytest

from admin import cli as admin_cli
from admin import nodehealth_cli
from admin.seams.jobs import jobs_of_host
from admin.seams.machines import machine_of
from admin.status.lines import lines
from admin.status.status import read_status
from jobs.state import READY, JobDirectory, JobState
from jobs.takedown import take_down
from jobs.tries import hold_after_tries, holds
from nodehealth.out_of_service import take_out_of_service
from nodehealth.records import dirty_nodes
from tests.unit.cray_standins import StandIns
from udi.command import Deadline
from udi.commandline import run
from udi.nodes import numbered
from udiroot.errors import TimedOut, UpstreamFailed, UsageError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the configuration must be root's")


@pytest.fixture
def cray(tmp_path: Path) -> StandIns:
    return StandIns(tmp_path)


def program(cray: StandIns, group: click.Group, *words: str) -> int:
    """The exit code of a program, as its console script would give it."""
    with (
        pytest.MonkeyPatch.context() as patched,
        pytest.raises(SystemExit) as exited,
    ):
        patched.setattr("sys.argv", ["program", "--config", str(cray.config_path), *words])
        run(group, "program")
        raise SystemExit(0)
    return int(exited.value.code or 0)


def admin(cray: StandIns, *words: str) -> int:
    return program(cray, admin_cli.cli, *words)


def mark(cray: StandIns, job: str, reason: str) -> None:
    """Take node 12 out of service."""
    take_out_of_service(cray.site, machine_of(cray.site), job, {numbered(12): reason}, Deadline(5))


def state(cray: StandIns, job: str = "123.sdb") -> JobState:
    return JobState(
        job,
        "alice",
        "debian:12",
        "ab" * 32,
        "524",
        (numbered(12), numbered(13)),
        f"{cray.store}/plans/{job}.x",
        READY,
        1,
    )


def test_dirty_node_from_marking_to_return(cray: StandIns, capsys: pytest.CaptureFixture[str]) -> None:
    mark(cray, "123.sdb", "loop device left")
    assert admin(cray, "status") == 0
    shown = capsys.readouterr().out
    assert "nid00012: admindown, dirty since" in shown and "job 123.sdb: loop device left" in shown
    cray.tell("check.12", "failed 1 8 123.sdb mounts=1 mounts left of job 123.sdb")
    assert admin(cray, "recover", "nid[00012-00013]") == 8
    out, err = capsys.readouterr()
    assert "nid00012: mounts left of job 123.sdb\nnid00013: skipped: not taken out of service by shifter-xc" in out
    assert "nid[00012-00013] not brought back" in err
    assert (cray.bin / "state.12").read_text() == "admindown\n"
    (cray.bin / "check.12").unlink()
    assert admin(cray, "recover", "12") == 0
    assert capsys.readouterr().out == "nid00012: clean and up\n"
    assert (cray.bin / "state.12").read_text() == "up\n"
    assert dirty_nodes(cray.site) == []
    assert cray.calls("xtxqtcmd")[-2:] == ["unsetupRoot nid00012 ", "check nid00012 "]


def test_silent_node_is_not_brought_back(cray: StandIns, capsys: pytest.CaptureFixture[str]) -> None:
    mark(cray, "123.sdb", "no answer")
    cray.tell("check.12", "silent")
    assert admin(cray, "recover", "12") == 8
    assert "nid00012: no answer" in capsys.readouterr().out


def test_record_stays_where_the_node_cannot_be_set_up(cray: StandIns) -> None:
    mark(cray, "123.sdb", "x")
    cray.tell("xtprocadmin.exit", "1")
    assert admin(cray, "recover", "12") == 6
    assert [dirty.node for dirty in dirty_nodes(cray.site)] == [numbered(12)]


def test_second_job_keeps_the_first_ones_record(cray: StandIns) -> None:
    mark(cray, "1.sdb", "first")
    mark(cray, "2.sdb", "second")
    assert [(node.jobs, node.reason) for node in dirty_nodes(cray.site)] == [(("1.sdb", "2.sdb"), "second")]


def test_reason_is_kept_where_marking_fails(cray: StandIns) -> None:
    cray.tell("xtprocadmin.exit", "1")
    with pytest.raises(UpstreamFailed):
        mark(cray, "1.sdb", "why")
    assert dirty_nodes(cray.site)[0].reason == "why"


def test_status_for_programs(cray: StandIns, capsys: pytest.CaptureFixture[str]) -> None:
    JobDirectory(cray.site, "123.sdb").save(state(cray))
    mark(cray, "9.sdb", "why")
    cray.tell("xtprocadmin.exit", "1")
    assert admin(cray, "status", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["jobs"][0]["nodes"] == ["nid00012", "nid00013"]
    assert document["nodes"][0]["node"] == "nid00012"
    assert document["nodes"][0]["state"] == "unknown" and "no database" in document["troubles"][0]


def test_empty_status(cray: StandIns, capsys: pytest.CaptureFixture[str]) -> None:
    assert admin(cray, "status") == 0
    assert capsys.readouterr().out == "no jobs with images here, no dirty nodes\nthe image gateway is not running\n"


def test_check_config(cray: StandIns, capsys: pytest.CaptureFixture[str]) -> None:
    for directory in (cray.directory, *cray.directory.parents[:-1]):
        directory.chmod(directory.stat().st_mode | 0o055)  # users must be able to read the configuration
    assert admin(cray, "check-config") == 0
    (cray.bin / "qhold").unlink()
    assert admin(cray, "check-config") == 2
    assert "torque.qhold" in capsys.readouterr().out


def test_render(cray: StandIns, capsys: pytest.CaptureFixture[str]) -> None:
    assert admin(cray, "render", "--output", str(cray.directory / "out")) == 0
    paths = capsys.readouterr().out.splitlines()
    assert all(os.path.isfile(path) for path in paths) and len(paths) == 42


@pytest.mark.parametrize("words", [("render", "--output", ""), ("install", "--root", "")])
def test_an_empty_directory_is_not_the_one_we_are_in(
    cray: StandIns, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    place = cray.directory / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    assert admin(cray, *words) == 2
    assert f"{words[1]} is empty" in capsys.readouterr().err and os.listdir(place) == []


def test_admindown_by_hand(cray: StandIns, capsys: pytest.CaptureFixture[str]) -> None:
    assert program(cray, nodehealth_cli.cli, "admindown", "12-13", "--reason", "looks odd") == 0
    assert "nid[00012-00013] admindown: looks odd" in capsys.readouterr().out
    assert program(cray, nodehealth_cli.cli, "recover", "12-13") == 0


def test_takedown_of_a_job_that_is_not_there(cray: StandIns) -> None:
    assert take_down(cray.site, machine_of(cray.site), "1.sdb", Deadline(5)).is_clean
    assert not os.path.exists(cray.site.jobs.state)
    with pytest.raises(UsageError):
        take_down(cray.site, machine_of(cray.site), "../x", Deadline(5))


def test_takedown_waits_for_the_one_who_works_on_the_job(cray: StandIns) -> None:
    directory = JobDirectory(cray.site, "123.sdb")
    directory.save(state(cray))
    with directory.locked(Deadline(1)), pytest.raises(TimedOut, match="another hook"):
        take_down(cray.site, machine_of(cray.site), "123.sdb", Deadline(0.3))
    assert take_down(cray.site, machine_of(cray.site), "123.sdb", Deadline(5)).is_clean
    assert not directory.exists


@pytest.mark.parametrize("text", ["", "{}", '{"phase": 1}', "[]", "{"])
def test_damaged_state_is_reported_and_kept(cray: StandIns, text: str) -> None:
    directory = JobDirectory(cray.site, "123.sdb")
    directory.save(state(cray))
    Path(directory.path, "state.json").write_text(text)
    with pytest.raises(UpstreamFailed, match=r"state\.json"):
        take_down(cray.site, machine_of(cray.site), "123.sdb", Deadline(5))
    assert directory.exists
    found = read_status(cray.site, jobs_of_host(cray.site, machine_of(cray.site), ()))
    assert "state.json cannot be read" in "\n".join(lines(found))


def test_missing_fanout_tool_counts_as_dirty(cray: StandIns) -> None:
    JobDirectory(cray.site, "123.sdb").save(state(cray))
    (cray.bin / "xtxqtcmd").unlink()
    done = take_down(cray.site, machine_of(cray.site), "123.sdb", Deadline(5))
    assert sorted(done.dirty) == [numbered(12), numbered(13)] and done.error is None
    assert [dirty.node for dirty in dirty_nodes(cray.site)] == [numbered(12), numbered(13)]


def test_takedown_by_hand(cray: StandIns, capsys: pytest.CaptureFixture[str]) -> None:
    JobDirectory(cray.site, "123.sdb").save(state(cray))
    cray.tell("unsetupRoot.13", "failed 1 8 123.sdb mounts=1 mount busy")
    assert admin(cray, "takedown", "123.sdb") == 8
    assert "nid00013 not clean; taken out of service" in capsys.readouterr().err
    assert admin(cray, "takedown", "123.sdb") == 0
    assert capsys.readouterr().out == "job 123.sdb: clean\n"


class _Manager:
    """A workload manager that takes every hold."""

    def hold(self, job: str) -> None:
        """Fine."""


def test_old_holds_go_as_new_ones_come(cray: StandIns) -> None:
    fault = UpstreamFailed("alps is away")
    assert not hold_after_tries(cray.site, _Manager(), "1.sdb", 2, fault).held
    assert hold_after_tries(cray.site, _Manager(), "1.sdb", 2, fault).held
    assert [hold.job for hold in holds(cray.site)] == ["1.sdb"]
    os.utime(cray.directory / "spool/tries/1.sdb.json", (1, 1))
    assert hold_after_tries(cray.site, _Manager(), "2.sdb", 1, fault).held
    assert [hold.job for hold in holds(cray.site)] == ["2.sdb"]


@pytest.mark.parametrize(
    ("answer", "code", "shown", "kept"),
    [
        ("<Data><Job><Job_Id>1.sdb</Job_Id><job_state>H</job_state></Job></Data>", 0, True, True),
        ("<Data><Job><Job_Id>1.sdb</Job_Id><job_state>Q</job_state></Job></Data>", 0, False, True),
        ("<Data><Job><Job_Id>1.sdb</Job_Id><job_state>C</job_state></Job></Data>", 0, False, False),
        ("", 153, False, False),
        ("", 1, True, True),
        ("", 0, True, True),
    ],
)
def test_status_shows_jobs_that_are_still_held(
    cray: StandIns, capsys: pytest.CaptureFixture[str], answer: str, code: int, shown: bool, kept: bool
) -> None:
    """Neither qdel nor qrls is reported to us; Torque itself knows."""
    assert hold_after_tries(cray.site, _Manager(), "1.sdb", 1, UpstreamFailed("alps is away")).held
    cray.tell("qstat.out", answer)
    cray.tell("qstat.exit", str(code))
    assert admin(cray, "status") == 0
    assert ("job 1.sdb: held since" in capsys.readouterr().out) == shown
    assert [hold.job for hold in holds(cray.site)] == ["1.sdb"] * kept


def test_status_does_not_wait_for_torque(cray: StandIns, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        hold_after_tries(cray.site, _Manager(), f"{number}.sdb", 1, UpstreamFailed("alps is away"))
    cray.tell("qstat.hang", "")
    began = time.monotonic()
    assert admin(cray, "status") == 0
    assert time.monotonic() - began < 30
    assert len(cray.calls("qstat")) == 1, "one that is not answered is enough"
    assert capsys.readouterr().out.count("held since") == 3


def test_usage_errors_have_one_form(cray: StandIns, capsys: pytest.CaptureFixture[str]) -> None:
    assert admin(cray, "recover") == 2
    assert capsys.readouterr().err.startswith("program: ")
    assert admin(cray, "recover", "nobody knows") == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("program: not a list of nodes: 'nobody knows'\nhint: ")


def test_deadlines_must_fit(cray: StandIns, capsys: pytest.CaptureFixture[str]) -> None:
    text = cray.config_path.read_text()
    cray.config_path.write_text(text.replace("deadline = 2\n", "deadline = 3\n", 1))
    assert admin(cray, "check-config") == 2
    assert "must each fit in the next, not 3, 2 and 12 seconds" in capsys.readouterr().out
