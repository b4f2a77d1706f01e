"""Starts that fail by no fault of the user: which are counted, when the job is held, and what a release means."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs.tries import forget_ended, holds
from tests.unit.cray_standins import IMAGE_ID, StandIns
from tests.unit.test_torque_prologue import JOB, _finish, _start, prologue
from torque_hooks.jobscript import script_of
from torque_hooks.settings import TorqueConfig
from torque_hooks.site_files import site_files
from udi.sitefiles import Renderer

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="hooks are root's, and so is their configuration")
BROKEN = "failed 1 7 - - no free loop device"


@pytest.fixture
def cray(tmp_path: Path) -> StandIns:
    standins = StandIns(tmp_path)
    standins.qstat_job("PBS_O_HOME=/root,UDI=debian:12")
    return standins


def configured(cray: StandIns, old: str, new: str) -> None:
    text = cray.config_path.read_text()
    assert old in text
    cray.config_path.write_text(text.replace(old, new))


def script(cray: StandIns, text: str) -> str:
    path = cray.directory / "123.SC"
    path.write_text(text)
    return str(path)


PINNED = f"#!/bin/sh\n#UDI pinned debian:12 {IMAGE_ID}\naprun x\n"


def test_a_job_is_held_after_the_last_try_and_a_release_gives_it_all_of_them_again(cray: StandIns) -> None:
    cray.qstat_job("UDI=debian:12", start_count="17")  # Torque's own count has refused reservations and reruns in it
    cray.tell("setupRoot.12", BROKEN)
    for _ in range(2):
        code, err = prologue(cray)
        assert code == 2 and "no free loop device [site error (not your job's fault); job requeued]" in err
    assert cray.calls("qhold") == [] and holds(cray.site) == []
    code, err = prologue(cray)
    assert code == 2 and "[site error (not your job's fault); job held after 3 failed starts]" in err
    assert cray.calls("qhold") == ["-h s 123.sdb"]
    assert ["no free loop device" in hold.reason for hold in holds(cray.site)] == [True]
    for _ in range(2):  # it starts again, so somebody released it
        assert "job requeued" in prologue(cray)[1]
    assert holds(cray.site) == []
    assert "job held after 3 failed starts" in prologue(cray)[1]
    (cray.bin / "setupRoot.12").unlink()
    assert prologue(cray) == (0, "")
    assert os.listdir(cray.directory / "spool/tries") == []


def test_a_hold_that_is_refused_is_tried_again(cray: StandIns) -> None:
    configured(cray, "requeue_pause = 0", "requeue_pause = 0\nmax_starts = 1")
    cray.tell("setupRoot.12", BROKEN)
    cray.tell("qhold.exit", "159")
    for _ in range(2):
        code, err = prologue(cray)
        assert code == 2 and "job requeued" in err
    assert len(cray.calls("qhold")) == 2 and holds(cray.site) == []


def test_the_users_own_error_is_not_counted(cray: StandIns) -> None:
    cray.tell("setupRoot.12", BROKEN)
    prologue(cray)
    assert os.listdir(cray.directory / "spool/tries") == [f"{JOB}.json"]
    cray.qstat_job("UDI=debian:13")
    assert prologue(cray)[0] == 1
    assert os.listdir(cray.directory / "spool/tries") == []


@pytest.mark.parametrize("damage", ["", "{}", "[1]", '{"failures": "x"}'])
def test_a_count_that_is_damaged_begins_again(cray: StandIns, damage: str) -> None:
    (cray.directory / "spool/tries").mkdir(parents=True)
    (cray.directory / f"spool/tries/{JOB}.json").write_text(damage)
    cray.tell("setupRoot.12", BROKEN)
    assert "job requeued" in prologue(cray)[1]
    assert json.loads((cray.directory / f"spool/tries/{JOB}.json").read_text())["failures"] == 1


@pytest.mark.parametrize(("age", "failures"), [(31 * 86400, 1), (60, 3), (-(10**9), 3)])
def test_failures_of_an_earlier_job_with_the_same_id_do_not_count(cray: StandIns, age: int, failures: int) -> None:
    """A server that was set up anew begins again with its ids. A clock that jumped back makes nothing old."""
    path = cray.directory / f"spool/tries/{JOB}.json"
    path.parent.mkdir(parents=True)
    tries = {"job": JOB, "failures": 2, "held": False, "reason": "x", "since": int(time.time()) - age}
    path.write_text(json.dumps(tries))
    cray.tell("setupRoot.12", BROKEN)
    assert prologue(cray)[0] == 2
    assert json.loads(path.read_text())["failures"] == failures


def test_failures_that_cannot_be_counted_hold_the_job(cray: StandIns) -> None:
    """It must not be started for ever."""
    (cray.directory / "spool").mkdir()
    (cray.directory / "spool/tries").write_text("not a directory")
    cray.tell("setupRoot.12", BROKEN)
    code, err = prologue(cray)
    assert code == 2 and "job held after 3 failed starts" in err


@pytest.mark.parametrize("fault", ["qstat.exit", "qstat.hang", "qstat.out"])
def test_a_torque_that_does_not_answer(cray: StandIns, fault: str) -> None:
    """A job with an image is held in the end; one whose script names none is no business of ours."""
    cray.tell(fault, {"qstat.out": "<broken"}.get(fault, "1"))
    configured(cray, "requeue_pause = 0", "requeue_pause = 0\nmax_starts = 2")
    configured(cray, "command_deadline = 2\nprologue", "command_deadline = 1\nprologue")
    path = script(cray, PINNED)
    assert prologue(cray, path)[0] == 2
    assert "job held after 2 failed starts" in prologue(cray, path)[1]
    assert prologue(cray, script(cray, "#PBS -v UDI=debian:12\naprun x\n"))[0] == 2
    assert prologue(cray, script(cray, "#!/bin/sh\necho hello\n")) == (0, "")
    code, err = prologue(cray, "/var/spool/torque/mom_priv/jobs/interactive.SC")
    assert code == 0 and "if this session has an image, leave it and submit it again" in err


def test_a_script_that_cannot_be_read_sends_back_no_job_without_an_image(cray: StandIns) -> None:
    cray.qstat_job("PBS_O_HOME=/root")
    assert prologue(cray, str(cray.directory)) == (0, "")


def test_a_script_whose_path_torque_does_not_pass(cray: StandIns) -> None:
    cray.tell("qstat.exit", "1")
    assert prologue(cray)[0] == 2, "nobody knows"
    jobs = cray.directory / "mom_priv/jobs"
    jobs.mkdir(parents=True)
    (jobs / f"{JOB}.SC").write_text("echo hello\n")
    assert prologue(cray) == (0, "")


def test_the_script_of_a_task_of_an_array(cray: StandIns) -> None:
    torque = cray.site.table(TorqueConfig)
    jobs = cray.directory / "mom_priv/jobs"
    jobs.mkdir(parents=True)
    (jobs / "12-3.sdb.SC").touch()
    assert script_of(torque, "12[3].sdb") == str(jobs / "12-3.sdb.SC")
    assert script_of(torque, "12[4].sdb") == script_of(torque, "12[].sdb") == ""


def test_state_that_cannot_be_removed_stops_no_job_that_is_ready(cray: StandIns) -> None:
    (cray.directory / f"spool/tries/{JOB}.json").mkdir(parents=True)
    assert prologue(cray) == (0, "")


def test_a_broken_configuration_sends_back_no_job_without_an_image(cray: StandIns) -> None:
    cray.config_path.write_text('[store]\npth = "/s"\n')
    assert prologue(cray, script(cray, "echo hello\n")) == (0, "")
    code, err = prologue(cray, script(cray, PINNED))
    assert code == 2 and "unknown key store.pth" in err


def test_deadlines_that_do_not_fit_hold_the_job(cray: StandIns) -> None:
    configured(cray, "prologue_deadline = 12", "prologue_deadline = 1\nmax_starts = 1")
    (cray.directory / "spool").mkdir()
    code, _ = prologue(cray)
    assert code == 2 and cray.calls("qhold") == ["-h s 123.sdb"]


def test_a_requeue_waits_longer_each_time_and_a_hold_does_not(cray: StandIns) -> None:
    def seconds() -> float:
        began = time.monotonic()
        assert prologue(cray)[0] == 2
        return time.monotonic() - began

    configured(cray, "requeue_pause = 0", "requeue_pause = 1")
    configured(cray, "prologue_deadline = 12", "prologue_deadline = 600")
    cray.tell("setupRoot.12", BROKEN)
    assert seconds() >= 1
    assert seconds() >= 2
    configured(cray, "requeue_pause = 1", "requeue_pause = 100")
    assert seconds() < 100


def test_a_pause_ends_within_the_deadline_and_for_a_signal(cray: StandIns) -> None:
    configured(cray, "requeue_pause = 0", "requeue_pause = 600")
    configured(cray, "prologue_deadline = 12", "prologue_deadline = 3")
    cray.tell("setupRoot.12", BROKEN)
    began = time.monotonic()
    assert prologue(cray)[0] == 2
    assert time.monotonic() - began < 100
    configured(cray, "prologue_deadline = 3", "prologue_deadline = 600")
    process = _start(cray, "prologue", JOB, "root", "root", "run", "", "batch", "")
    assert process.stderr is not None
    line = process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert _finish(process)[0] == 2 and "job requeued" in line
    assert time.monotonic() - began < 100


def test_jobs_that_no_longer_exist_are_forgotten(cray: StandIns) -> None:
    configured(cray, "requeue_pause = 0", "requeue_pause = 0\nmax_starts = 1")
    cray.tell("setupRoot.12", BROKEN)
    prologue(cray)
    forget_ended(cray.site, {JOB})
    assert [hold.job for hold in holds(cray.site)] == [JOB]
    forget_ended(cray.site, ())
    assert holds(cray.site) == []


def _hook(cray: StandIns) -> str:
    files = site_files(cray.site, Renderer(cray.site, str(cray.config_path)))
    return next(file.text for file in files if file.path.endswith("/prologue"))


@pytest.mark.parametrize("fault", ["no Python", "no package"])
@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_a_program_that_is_missing_sends_back_no_job_without_an_image(cray: StandIns, shell: str, fault: str) -> None:
    """The package's environment was removed, and Torque does not answer either."""
    text = _hook(cray)
    old, new = (sys.executable, "/no/such/python") if fault == "no Python" else ("admin.entry.torque", "admin.absent")
    assert old in text
    hook = cray.directory / "prologue"
    hook.write_text(text.replace(old, new))

    def run(content: str) -> tuple[int, str]:
        arguments = [JOB, "root", "root", "run", "nodes=2:ppn=2", "batch", "", script(cray, content)]
        done = subprocess.run([shell, str(hook), *arguments], capture_output=True, text=True, check=False, timeout=60)
        return done.returncode, done.stdout + done.stderr

    for content in ("echo hello\n", PINNED):
        code, output = run(content)
        assert (code, output.count("\n")) == (2, 1) and output.startswith("udi-prologue: "), "Torque names an image"
    cray.tell("qstat.exit", "1")
    assert run("echo hello\n") == (0, "")
    assert run(PINNED)[0] == 2
    assert run("#PBS -v UDI=debian:12\n")[0] == 2


def test_a_signal_before_python_catches_it_does_not_end_the_hook(cray: StandIns) -> None:
    """A hook that a signal kills counts as a success, and its job would start."""
    hook = cray.directory / "prologue"
    code = "import os, signal, sys; os.kill(os.getpid(), signal.SIGTERM); sys.exit(2)"
    hook.write_text(_hook(cray).replace("import sys\n", f"{code}\n", 1))
    cray.tell("qstat.exit", "1")
    done = subprocess.run(["sh", str(hook), JOB, *6 * ["x"]], capture_output=True, check=False, timeout=60)
    assert done.returncode == 2
