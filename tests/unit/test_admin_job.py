"""`udi-admin job`: one job from each of the places that know of it, and the sentence that says why."""

from __future__ import annotations

import json
import os
import pwd
import time
from pathlib import Path
from typing import Any

import pytest

from jobs.state import READY, SETTING_UP, JobDirectory, JobState
from jobs.tries import hold_after_tries
from nodehealth.records import record
from tests.unit.cray_standins import IMAGE_ID, StandIns
from tests.unit.test_admin_commands import _Manager, admin
from udi.nodes import numbered
from udiroot.errors import UpstreamFailed

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the configuration must be root's")
READY_LINE = "image debian:12 ready on 2 nodes; slowest nid00012, 31 ms"


@pytest.fixture
def cray(tmp_path: Path) -> StandIns:
    made = StandIns(tmp_path)
    made.tell("qstat.exit", "153")
    return made


def logged(cray: StandIns, *messages: str, program: str = "udi-prologue", level: str = "INFO") -> None:
    path = Path(cray.site.jobs.log)
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as stream:
        for number, message in enumerate(messages):
            stamp = time.strftime("%Y-%m-%d %H:%M:%S") + f",{number:03}"
            stream.write(f"{stamp} {program}[7] job 123.sdb {level} {message}\n")


def queued(cray: StandIns, state: str, **fields: str) -> None:
    cray.tell("qstat.exit", "0")
    cray.qstat_job("UDI=debian:12,UDI_VOLUMES=/scratch/a:/data", job_state=state, Job_Owner="root@login", **fields)


def running(cray: StandIns, phase: str = READY, since: float = 0.0) -> None:
    nodes = (numbered(12), numbered(13))
    began = int(since or time.time())
    plan = f"{cray.store}/plans/123.sdb.x"
    JobDirectory(cray.site, "123.sdb").save(
        JobState("123.sdb", "alice", "debian:12", IMAGE_ID, "524", nodes, plan, phase, began)
    )


def shown(cray: StandIns, capsys: pytest.CaptureFixture[str], job: str = "123.sdb") -> dict[str, Any]:
    assert admin(cray, "job", "--json", job) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_job_that_nobody_knows(cray: StandIns, capsys: pytest.CaptureFixture[str]) -> None:
    assert admin(cray, "job", "7.sdb") == 3
    err = capsys.readouterr().err
    assert "nothing is known of job 7.sdb on this host" in err and "its log may be gone" in err
    assert admin(cray, "job", "../7") == 2


def test_what_was_asked_for_is_taken_apart_as_for_the_job(cray: StandIns, capsys: pytest.CaptureFixture[str]) -> None:
    """Before there is a plan: the lists as the user wrote them."""
    cray.tell("qstat.exit", "0")
    variables = "UDI=debian:12,UDI_VOLUMES=/scratch/a:/data; /scratch/b:/b:ro,UDI_MODULES=mpich; gpu;"
    cray.qstat_job(variables, job_state="Q", Job_Owner="root@login")
    found = shown(cray, capsys)
    assert found["modules"] == ["mpich", "gpu"]
    assert found["volumes"] == ["/scratch/a:/data", "/scratch/b:/b:ro"]
    assert admin(cray, "job", "123") == 0
    out = capsys.readouterr().out
    assert "mpich, gpu\n" in out and "/scratch/a:/data, /scratch/b:/b:ro\n" in out


def test_a_job_that_runs(cray: StandIns, capsys: pytest.CaptureFixture[str]) -> None:
    queued(cray, "R", exec_host="12/0-1+13/0-1")
    running(cray)
    logged(cray, "setup: nid00012: 31 ms", "setup: nid00013: 30 ms", READY_LINE)
    found = shown(cray, capsys, "123")
    assert (found["job"], found["user"], found["image"], found["phase"]) == ("123.sdb", "alice", "debian:12", "ready")
    assert found["nodes"] == ["nid00012", "nid00013"] and found["image_id"] == IMAGE_ID
    assert found["facts"]["format"] == "squashfs" and found["volumes"] == ["/scratch/a:/data"]
    assert found["why"] == {"cause": "it runs in its image on nid[00012-00013]", "owner": "nobody", "remedy": ""}
    assert len(found["events"]) == 2 and "31 ms" in found["setup"]
    assert admin(cray, "job", "123") == 0
    out = capsys.readouterr().out
    assert "setup: nid[00012-00013] (2 nodes): 30 to 31 ms" in out
    assert all(line == line.rstrip() for line in out.splitlines())


def test_a_job_that_ended_is_told_by_the_log(cray: StandIns, capsys: pytest.CaptureFixture[str]) -> None:
    logged(cray, READY_LINE)
    logged(cray, "taken down on nid[00012-00013]", program="udi-epilogue")
    found = shown(cray, capsys, "123")
    assert (found["job"], found["image"], found["teardown"]) == ("123.sdb", "debian:12", "nid[00012-00013] clean")
    assert "ran in its image and was taken down" in found["why"]["cause"] and found["why"]["owner"] == "nobody"


def test_what_the_job_itself_made_of_it_is_its_users(cray: StandIns, capsys: pytest.CaptureFixture[str]) -> None:
    logged(cray, READY_LINE, "taken down on nid[00012-00013]")
    queued(cray, "C", exit_status="9")
    found = shown(cray, capsys)
    assert "its own exit status was 9" in found["why"]["cause"] and found["why"]["owner"] == "user"


@pytest.mark.parametrize(
    ("message", "owner", "remedy"),
    [
        ("start failed, exit code 1: no image alice/x:1", "user", ""),
        ("start failed, exit code 2: the image store cannot be read", "site", "run udi-admin check-config"),
        (
            "start failed, exit code 2: setup on nid[00012-00013]: no squashfs",
            "node",
            "run udi-admin check-config --nodes nid[00012-00013]",
        ),
        (
            "start failed, exit code 2: setup on nid[00012,00014],+98: no squashfs",
            "node",
            "run udi-admin check-config --nodes NODE, for one of them",
        ),
        (
            "start failed, exit code 2: setup on nid[00012-00013]: x (on all its nodes: check y)",
            "site",
            "run udi-admin check-config",
        ),
        ("the prologue cannot be run: udi.toml: x", "site", "run udi-admin check-config"),
    ],
)
def test_a_start_that_failed(
    cray: StandIns, capsys: pytest.CaptureFixture[str], message: str, owner: str, remedy: str
) -> None:
    logged(cray, message, level="ERROR")
    found = shown(cray, capsys)
    assert found["why"]["owner"] == owner and message.partition(": ")[2] in found["why"]["cause"]
    assert found["why"]["remedy"] == remedy
    assert found["failures"][0]["owner"] == owner


def test_a_job_that_is_held(cray: StandIns, capsys: pytest.CaptureFixture[str]) -> None:
    hold_after_tries(cray.site, _Manager(), "123.sdb", 1, UpstreamFailed("alps is away"))
    queued(cray, "H")
    found = shown(cray, capsys)
    assert found["failed_starts"]["count"] == 1 and found["failed_starts"]["is_held"]
    assert found["why"]["cause"] == "held after 1 failed start: alps is away" and found["why"]["owner"] == "site"
    assert found["why"]["remedy"] == "run udi-admin check-config; once that is mended: qrls -h s 123.sdb"


def test_a_teardown_that_failed(cray: StandIns, capsys: pytest.CaptureFixture[str]) -> None:
    logged(cray, READY_LINE)
    logged(cray, "takedown failed: alps is away", program="udi-epilogue", level="ERROR")
    assert shown(cray, capsys)["why"]["remedy"] == "run udi-admin status"
    running(cray)
    assert shown(cray, capsys)["why"]["remedy"] == "run udi-admin takedown 123.sdb"


def test_nodes_that_stayed_dirty_come_first(cray: StandIns, capsys: pytest.CaptureFixture[str]) -> None:
    logged(cray, READY_LINE, "taken down on nid[00012-00013]; dirty: nid00013")
    record(cray.site, "123.sdb", {numbered(13): "teardown of job 123.sdb: mount busy"}, 1000)
    found = shown(cray, capsys)
    assert found["why"]["owner"] == "node" and found["why"]["remedy"] == "run udi-admin recover nid00013"
    assert found["dirty"][0]["node"] == "nid00013"


def test_a_job_that_waits(cray: StandIns, capsys: pytest.CaptureFixture[str]) -> None:
    queued(cray, "Q", qtime="1000")
    found = shown(cray, capsys)
    assert (found["image_id"], found["pinned"]) == (IMAGE_ID, False)
    assert found["why"]["cause"] == "it waits in the queue, for debian:12"
    assert found["manager"]["queued"].startswith("1970-01-01") and found["manager"]["fate"] == "queued"
    cray.add_ref(f"id:{IMAGE_ID}", IMAGE_ID, (pwd.getpwnam("root").pw_uid,))
    assert shown(cray, capsys)["pinned"]


def test_a_job_that_waits_for_an_image_that_is_not_there(cray: StandIns, capsys: pytest.CaptureFixture[str]) -> None:
    queued(cray, "Q")
    cray.qstat_job("UDI=debian:99", job_state="Q", Job_Owner="root@login")
    found = shown(cray, capsys)
    assert found["why"]["owner"] == "user" and "not in the store" in found["why"]["remedy"]


def test_a_job_without_an_image(cray: StandIns, capsys: pytest.CaptureFixture[str]) -> None:
    cray.tell("qstat.exit", "0")
    cray.qstat_job("HOME=/root", job_state="R", Job_Owner="root@login")
    assert "no part in it" in shown(cray, capsys)["why"]["cause"]


def test_a_hook_that_was_killed(cray: StandIns, capsys: pytest.CaptureFixture[str]) -> None:
    running(cray, SETTING_UP, time.time() - 7200)
    found = shown(cray, capsys)
    assert "setting up on nid[00012-00013], for 2 h" in found["why"]["cause"]
    assert "udi-admin takedown 123.sdb" in found["why"]["remedy"]


def test_sources_that_fail_are_named(cray: StandIns, capsys: pytest.CaptureFixture[str]) -> None:
    logged(cray, READY_LINE)
    running(cray)
    cray.tell("qstat.exit", "1")
    Path(cray.store, "plans/123.sdb.x").write_text("udi-plan 2\n")
    Path(JobDirectory(cray.site, "9.sdb").path).mkdir(parents=True)
    troubles = " ".join(shown(cray, capsys)["troubles"])
    assert "Torque was not asked" in troubles and "plan " in troubles
