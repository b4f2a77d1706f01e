"""The prologue and the epilogue as pbs_mom runs them: a process, its exit code, and what it leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.unit.cray_standins import IMAGE_ID, OTHER_ID, StandIns

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="hooks are root's, and so is their configuration")

JOB = "123.sdb"


@pytest.fixture
def cray(tmp_path: Path) -> StandIns:
    made = StandIns(tmp_path)
    made.qstat_job("PBS_O_HOME=/root,UDI=debian:12")
    return made


def _start(cray: StandIns, hook: str, *arguments: str) -> subprocess.Popen[str]:
    code = f"import sys; from torque_hooks.{hook} import main; sys.exit(main())"
    return subprocess.Popen(
        [sys.executable, "-I", "-c", code, "--config", str(cray.config_path), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        env={"PATH": "/bin:/usr/bin"},
    )


def _finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, err = process.communicate(timeout=60)
    return process.returncode, err


def prologue(cray: StandIns, script: str = "", name: str = "run") -> tuple[int, str]:
    arguments = [JOB, "root", "root", name, "nodes=2:ppn=2", "batch", ""]
    return _finish(_start(cray, "prologue", *arguments, *([script] if script else [])))


def epilogue(cray: StandIns) -> tuple[int, str]:
    return _finish(
        _start(cray, "epilogue", JOB, "root", "root", "run", "11", "nodes=2", "cput=0", "batch", "", "0", "/x.SC")
    )


def states(cray: StandIns) -> list[str]:
    folder = cray.folder / "spool/jobs"
    return os.listdir(folder) if folder.exists() else []


def test_way_of_a_job(cray: StandIns) -> None:
    assert prologue(cray) == (0, "")
    assert cray.calls("xtxqtcmd") == ["setupRoot nid00012 nid00013 "]
    state = json.loads((cray.folder / f"spool/jobs/{JOB}/state.json").read_text())
    assert (state["phase"], state["nids"], state["image_id"]) == ("ready", [12, 13], IMAGE_ID)
    assert len(cray.plans()) == 1
    plan = cray.store / "plans" / cray.plans()[0]
    assert plan.stat().st_mode & 0o7777 == 0o400
    assert "node 12-13/2\n" in plan.read_text()
    assert epilogue(cray) == (0, "")
    assert cray.calls("xtxqtcmd")[1:] == ["unsetupRoot nid00012 nid00013 "]
    assert states(cray) == [] and cray.plans() == []
    assert epilogue(cray) == (0, "")
    assert len(cray.calls("xtxqtcmd")) == 2


def test_job_without_image_is_left_alone(cray: StandIns) -> None:
    cray.qstat_job("PBS_O_HOME=/root,UDI=")
    assert prologue(cray) == (0, "")
    assert epilogue(cray) == (0, "")
    assert cray.calls("apstat") == [] and states(cray) == []


def test_twice_sets_up_afresh(cray: StandIns) -> None:
    assert prologue(cray)[0] == 0
    assert prologue(cray)[0] == 0
    steps = [call.split()[0] for call in cray.calls("xtxqtcmd")]
    assert steps == ["setupRoot", "unsetupRoot", "setupRoot"]
    assert len(cray.plans()) == 1


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ("UDI=debian:13", "no image 'debian:13' that you may use (did you mean debian:12?)"),
        ("UDI=debian:$(id)", "not an image name: 'debian:$(id)'"),
        ("UDI=debian:12\n(complete)", "not an image name: 'debian:12"),
        ("UDI=debian:12\x01", "not an image name: 'debian:12"),
        ("UDI=debian:12,UDI_VOLUMES=/etc:/mnt", "source /etc is outside what the site allows"),
        ("UDI=debian:12,UDI_VOLUMES=/scratch/x:/etc/y", "no volume may be mounted on /etc/y"),
    ],
)
def test_users_mistake_aborts_with_one_line(cray: StandIns, variables: str, words: str) -> None:
    errors = cray.folder / "run.e123"
    cray.qstat_job(variables, Error_Path=f"login1:{errors}")
    code, err = prologue(cray)
    assert code == 1
    assert words in err and err.count("\n") == 1
    assert errors.read_text() == err
    assert states(cray) == [] and cray.calls("xtxqtcmd") == []


@pytest.mark.parametrize("spelling", ["docker.io/debian:12", "docker.io/library/debian:12", "library/debian:12"])
def test_any_spelling_of_the_image(cray: StandIns, spelling: str) -> None:
    cray.qstat_job(f"UDI={spelling}")
    assert prologue(cray) == (0, "")


def test_image_of_another_user(cray: StandIns) -> None:
    cray.add_image("secret:1", OTHER_ID, owners=(4242,))
    cray.qstat_job("UDI=secret:1")
    code, err = prologue(cray)
    assert code == 1 and "no image 'secret:1' that you may use" in err
    cray.qstat_job(f"UDI=id:{OTHER_ID}")
    assert prologue(cray)[0] == 1


def test_lost_variable(cray: StandIns, tmp_path: Path) -> None:
    script = tmp_path / "123.SC"
    script.write_text(f"#!/bin/sh\n#UDI pinned debian:12 {IMAGE_ID}\naprun x\n")
    cray.qstat_job("PBS_O_HOME=/root,DI=debian:12")
    code, err = prologue(cray, str(script))
    assert code == 1 and "its variable UDI was lost on the way" in err


@pytest.mark.parametrize(
    ("pinned", "expected", "notice"),
    [(OTHER_ID, OTHER_ID, ""), ("ef" * 32, IMAGE_ID, "the image that debian:12 was at submission is gone")],
)
def test_pin(cray: StandIns, tmp_path: Path, pinned: str, expected: str, notice: str) -> None:
    cray.add_image("debian:old", OTHER_ID)
    script = tmp_path / "123.SC"
    script.write_text(f"#UDI pinned debian:12 {pinned}\naprun x\n")
    code, err = prologue(cray, str(script))
    assert code == 0
    assert notice in err and bool(notice) == bool(err)
    state = json.loads((cray.folder / f"spool/jobs/{JOB}/state.json").read_text())
    assert state["image_id"] == expected


@pytest.mark.parametrize(
    ("answers", "code", "words"),
    [
        ({13: "failed 5 4 volume /scratch/x is not yours"}, 1, "set-up on nid00013: volume /scratch/x is not yours"),
        ({13: "failed 5 7 no free loop device"}, 2, "set-up on nid00013: no free loop device"),
        ({12: "failed 5 4 yours", 13: "failed 5 7 ours"}, 2, "set-up on nid[00012-00013]: ours"),
        ({13: "silent"}, 2, "set-up on nid00013: no answer"),
    ],
)
def test_set_up_fails_and_is_undone_everywhere(cray: StandIns, answers: dict[int, str], code: int, words: str) -> None:
    for nid, says in answers.items():
        cray.tell(f"setupRoot.{nid}", says)
    got, err = prologue(cray)
    assert got == code and words in err
    assert [call.split()[0] for call in cray.calls("xtxqtcmd")] == ["setupRoot", "unsetupRoot"]
    assert states(cray) == [] and cray.plans() == []
    assert cray.calls("xtprocadmin") == []


def test_node_that_cannot_be_undone_goes_out_of_service(cray: StandIns) -> None:
    cray.tell("setupRoot.13", "silent")
    cray.tell("unsetupRoot.13", "silent")
    assert prologue(cray)[0] == 2
    assert cray.calls("xtprocadmin")[0] == "-k s admindown -n 13"
    assert "no answer" in json.loads((cray.folder / "spool/nodes/13.json").read_text())["reason"]


def test_epilogue_with_dirty_node(cray: StandIns) -> None:
    assert prologue(cray)[0] == 0
    cray.tell("unsetupRoot.12", "failed 9 8 mount /var/udi is busy")
    code, err = epilogue(cray)
    assert code == 0 and err.count("\n") == 1 and "nid00012 could not be cleaned" in err
    record = json.loads((cray.folder / "spool/nodes/12.json").read_text())
    assert "mount /var/udi is busy" in record["reason"] and record["jobs"] == [JOB]
    assert states(cray) == []


def test_epilogue_when_nodes_cannot_be_marked(cray: StandIns) -> None:
    assert prologue(cray)[0] == 0
    cray.tell("unsetupRoot.12", "silent")
    cray.tell("xtprocadmin.exit", "3")
    code, err = epilogue(cray)
    assert code == 8 and "nid00012 not clean, and not out of service" in err
    assert (cray.folder / "spool/nodes/12.json").exists()


@pytest.mark.parametrize("fault", ["qstat.hang", "apstat.hang", "setupRoot.hang", "setupRoot.dies", "never", "empty"])
def test_fault_of_the_site_requeues(cray: StandIns, fault: str) -> None:
    if fault == "never":
        cray.tell("apstat.rows", " ResId     ApId From           Arch   PEs N d Memory State\n")
    elif fault == "empty":
        cray.tell("apstat.524", "Batch System ID = 123.sdb\n")
    else:
        cray.tell(fault, "")
    if fault == "setupRoot.hang":
        cray.tell("setupRoot.12", "silent")
    began = time.monotonic()
    code, err = prologue(cray)
    assert code == 2 and "a fault of the site: the job will be tried again" in err
    assert time.monotonic() - began < 15
    assert states(cray) == [] and cray.plans() == []


def test_missing_tool_makes_no_node_suspect(cray: StandIns) -> None:
    (cray.bin / "xtxqtcmd").unlink()
    code, err = prologue(cray)
    assert code == 2 and "not an executable program" in err
    assert states(cray) == [] and cray.plans() == [] and cray.calls("xtprocadmin") == []


def test_hold_after_tries(cray: StandIns) -> None:
    cray.qstat_job("UDI=debian:12", start_count="3")
    cray.tell("setupRoot.12", "failed 1 7 no free loop device")
    code, err = prologue(cray)
    assert code == 2 and "the job is held after 3 starts" in err
    assert cray.calls("qhold") == ["-h s 123.sdb"]
    held = json.loads((cray.folder / f"spool/held/{JOB}.json").read_text())
    assert "no free loop device" in held["reason"]
    (cray.bin / "setupRoot.12").unlink()
    assert prologue(cray)[0] == 0
    assert os.listdir(cray.folder / "spool/held") == []


def test_hold_is_refused(cray: StandIns) -> None:
    cray.qstat_job("UDI=debian:12", start_count="4")
    cray.tell("setupRoot.12", "failed 1 7 no free loop device")
    cray.tell("qhold.exit", "159")
    code, err = prologue(cray)
    assert code == 2 and "will be tried again" in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signal_is_caught_and_undone(cray: StandIns, number: signal.Signals) -> None:
    cray.tell("setupRoot.hang", "")
    cray.tell("setupRoot.12", "silent")
    process = _start(cray, "prologue", JOB, "root", "root", "run", "", "batch", "")
    while not cray.calls("xtxqtcmd"):
        time.sleep(0.02)
    process.send_signal(number)
    code, err = _finish(process)
    assert code == 2 and f"ended by {number.name}" in err
    assert states(cray) == [] and cray.plans() == []


def test_killed_prologue_is_cleaned_by_the_epilogue(cray: StandIns) -> None:
    cray.tell("setupRoot.hang", "")
    cray.tell("setupRoot.12", "silent")
    process = _start(cray, "prologue", JOB, "root", "root", "run", "", "batch", "")
    while not cray.calls("xtxqtcmd"):
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert states(cray) == [JOB]
    assert epilogue(cray) == (0, "")
    assert states(cray) == [] and cray.plans() == []


def test_login_job_needs_nothing(cray: StandIns) -> None:
    cray.qstat_job("UDI=debian:12", exec_host="login1/0")
    cray.tell("apstat.rows", "No reservations are present\n")
    assert prologue(cray) == (0, "")
    assert states(cray) == [] and cray.calls("xtxqtcmd") == []


def test_job_whose_name_is_an_option(cray: StandIns) -> None:
    cray.qstat_job("PBS_O_HOME=/root")
    assert prologue(cray, name="--config=/tmp/evil.toml") == (0, "")


def test_broken_configuration_requeues(cray: StandIns) -> None:
    cray.config_path.write_text("[stroe]\n")
    code, err = prologue(cray)
    assert code == 2 and "unknown key stroe" in err and "Traceback" not in err


def test_log_names_the_job(cray: StandIns) -> None:
    prologue(cray)
    text = (cray.folder / "log/hooks.log").read_text()
    assert f"job {JOB} INFO image debian:12 ready on 2 nodes" in text
    assert "Reply (complete) from nid00012" in text
