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

from tests.gateway.service import directory_for_all
from tests.unit.cray_standins import IMAGE_ID, OTHER_ID, StandIns, wait_for
from torque_hooks.site_files import site_files
from udi.provenance import SUFFIX, Provenance, to_json
from udi.sitefiles import Renderer

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="hooks are root's, and so is their configuration")

JOB = "123.sdb"


@pytest.fixture
def cray(tmp_path: Path) -> StandIns:
    standins = StandIns(tmp_path)
    standins.qstat_job("PBS_O_HOME=/root,UDI=debian:12")
    return standins


def _start(cray: StandIns, hook: str, *arguments: str) -> subprocess.Popen[str]:
    code = f"import sys; from admin.entry.torque import {hook}; sys.exit({hook}())"
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
    directory = cray.directory / "spool/jobs"
    return os.listdir(directory) if directory.exists() else []


def test_a_job_from_start_to_end(cray: StandIns) -> None:
    assert prologue(cray) == (0, "")
    assert cray.calls("xtxqtcmd") == ["setupRoot nid00012 nid00013 "]
    state = json.loads((cray.directory / f"spool/jobs/{JOB}/state.json").read_text())
    assert (state["phase"], state["nodes"], state["image_id"]) == ("ready", ["nid00012", "nid00013"], IMAGE_ID)
    assert len(cray.plans()) == 1
    plan = cray.store / "plans" / cray.plans()[0]
    assert plan.stat().st_mode & 0o7777 == 0o400
    assert "node 2 12,13 nid00012,nid00013 " in plan.read_text()
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


def test_what_the_script_carries_of_an_environment_file(cray: StandIns, tmp_path: Path) -> None:
    """The file itself is never looked at."""
    cray.qstat_job("PBS_O_HOME=/root,UDI=@/nonexistent/run.toml")
    script = tmp_path / "123.SC"
    carries = "#UDI carries file=/nonexistent/run.toml;image=debian:12;work\n#UDI carries dir=/w;set=A%3D1%2C2"
    script.write_text(f"#!/bin/sh\n#UDI pinned debian:12 {IMAGE_ID}\n{carries}\naprun x\n")
    assert prologue(cray, str(script)) == (0, "")
    plan = (cray.store / "plans" / cray.plans()[0]).read_text()
    assert "workdir%20/w%00" in plan and "set%20A=1,2%00set%20HOME=" in plan
    assert epilogue(cray) == (0, "")


@pytest.mark.parametrize(
    ("carries", "said"),
    [
        ("", "environment file /run.toml: the job carries nothing of it"),
        ("#UDI carries file=/x.toml;image=debian:12", "was to have environment file /run.toml, and carries /x.toml"),
        ("#UDI carries file=/run.toml;image=debian:12;set=A%0A", "has a control character at A"),
        ("#UDI carries file=/run.toml;image=debian:12;volumes=/root:/x", "is not in a directory that the site allows"),
    ],
)
def test_what_a_script_cannot_carry_deletes_the_job(cray: StandIns, tmp_path: Path, carries: str, said: str) -> None:
    cray.qstat_job("PBS_O_HOME=/root,UDI=@/run.toml")
    script = tmp_path / "123.SC"
    script.write_text(f"#!/bin/sh\n{carries}\naprun x\n")
    code, err = prologue(cray, str(script))
    assert (code, err.count("\n")) == (1, 1) and said in err
    assert states(cray) == [] and cray.plans() == [] and cray.calls("xtxqtcmd") == []


def test_twice_sets_up_afresh(cray: StandIns) -> None:
    assert prologue(cray)[0] == 0
    assert prologue(cray)[0] == 0
    steps = [call.split()[0] for call in cray.calls("xtxqtcmd")]
    assert steps == ["setupRoot", "unsetupRoot", "setupRoot"]
    assert len(cray.plans()) == 1


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ("UDI=debian:13", "image 'debian:13' not found, or you do not have access to it (did you mean debian:12?)"),
        ("UDI=debian:$(id)", "not an image name: 'debian:$(id)'"),
        ("UDI=debian:12\n(complete)", "not an image name: 'debian:12"),
        ("UDI=debian:12\x01", "not an image name: 'debian:12"),
        ("UDI=debian:12,UDI_VOLUMES=/etc:/mnt", "source /etc is not in a directory that the site allows"),
        ("UDI=debian:12,UDI_VOLUMES=/scratch/x:/etc/y", "no volume may be mounted on /etc/y"),
    ],
)
def test_users_mistake_aborts_with_one_line(cray: StandIns, variables: str, message: str) -> None:
    errors = cray.directory / "run.e123"
    cray.qstat_job(variables, Error_Path=f"login1:{errors}")
    code, err = prologue(cray)
    assert code == 1
    assert message in err and err.count("\n") == 1
    assert errors.read_text() == err
    assert states(cray) == [] and cray.calls("xtxqtcmd") == []


@pytest.mark.parametrize("spelling", ["docker.io/debian:12", "docker.io/library/debian:12", "library/debian:12"])
def test_any_spelling_of_the_image(cray: StandIns, spelling: str) -> None:
    cray.qstat_job(f"UDI={spelling}")
    assert prologue(cray) == (0, "")


def test_image_that_the_rules_on_signatures_do_not_accept(cray: StandIns) -> None:
    """By the record of the store alone: a job host has no keys, and the pin of a job is its user's text."""
    with cray.config_path.open("a") as config:
        config.write('\n[[signatures.rules]]\nimages = ["docker.io/*"]\nkeys = ["/no/such"]\n')
    for text in ("debian:12", f"id:{IMAGE_ID}"):
        cray.qstat_job(f"UDI={text}")
        code, err = prologue(cray)
        assert code == 1 and err.count("\n") == 1, err
        assert f"image {text} " in err and "pulled before the site asked for" in err
    assert states(cray) == [] and cray.calls("xtxqtcmd") == []
    signed = Provenance(repository="docker.io/library/debian", signers=("ab" * 32,))
    (cray.store / f"images/{IMAGE_ID}{SUFFIX}").write_text(to_json([signed]))
    for text in ("debian:12", f"id:{IMAGE_ID}"):
        cray.qstat_job(f"UDI={text}")
        assert prologue(cray) == (0, "")


def test_image_of_another_user(cray: StandIns) -> None:
    cray.add_image("secret:1", OTHER_ID, owners=(4242,))
    cray.qstat_job("UDI=secret:1")
    code, err = prologue(cray)
    assert code == 1 and "image 'secret:1' not found, or you do not have access to it" in err
    cray.qstat_job(f"UDI=id:{OTHER_ID}")
    assert prologue(cray)[0] == 1


def test_lost_variable(cray: StandIns, tmp_path: Path) -> None:
    script = tmp_path / "123.SC"
    script.write_text(f"#!/bin/sh\n#UDI pinned debian:12 {IMAGE_ID}\naprun x\n")
    cray.qstat_job("PBS_O_HOME=/root,DI=debian:12")
    code, err = prologue(cray, str(script))
    assert code == 1 and "but qsub lost its variable UDI" in err


def test_what_nodes_warn_of_is_for_the_user(cray: StandIns) -> None:
    """Once, however many nodes say it."""
    warning = "volume /scratch/a:/data hides what the image has there"
    cray.tell("setupRoot.all", f"ok 5 0 - hides=1 {warning}")
    code, err = prologue(cray)
    assert (code, err) == (0, f"udi-prologue: warning: {warning}\n")
    assert (cray.directory / "log/hooks.log").read_text().count(f"warning: {warning}\n") == 1


@pytest.mark.parametrize(
    ("pinned", "expected", "notice"),
    [
        (OTHER_ID, OTHER_ID, ""),
        (
            "ef" * 32,
            IMAGE_ID,
            "the image pinned for debian:12 at submission no longer exists; using the current debian:12",
        ),
    ],
)
def test_pin(cray: StandIns, tmp_path: Path, pinned: str, expected: str, notice: str) -> None:
    cray.add_image("debian:old", OTHER_ID)
    script = tmp_path / "123.SC"
    script.write_text(f"#UDI pinned debian:12 {pinned}\naprun x\n")
    code, err = prologue(cray, str(script))
    assert code == 0
    assert notice in err and bool(notice) == bool(err)
    state = json.loads((cray.directory / f"spool/jobs/{JOB}/state.json").read_text())
    assert state["image_id"] == expected


@pytest.mark.parametrize(
    ("answers", "code", "message"),
    [
        ({13: "failed 5 4 - - volume /scratch/x is not yours"}, 1, "setup on nid00013: volume /scratch/x is not yours"),
        ({13: "failed 5 7 - - no free loop device"}, 2, "setup on nid00013: no free loop device"),
        ({12: "failed 5 4 - - user", 13: "failed 5 7 - - site"}, 2, "setup on nid[00012-00013]: site"),
        ({13: "silent"}, 2, "setup on nid00013: no answer"),
    ],
)
def test_setup_fails_and_is_undone_everywhere(cray: StandIns, answers: dict[int, str], code: int, message: str) -> None:
    for nid, report in answers.items():
        cray.tell(f"setupRoot.{nid}", report)
    got, err = prologue(cray)
    assert got == code and message in err
    assert [call.split()[0] for call in cray.calls("xtxqtcmd")] == ["setupRoot", "unsetupRoot"]
    assert states(cray) == [] and cray.plans() == []
    assert cray.calls("xtprocadmin") == []


def test_node_that_cannot_be_undone_goes_out_of_service(cray: StandIns) -> None:
    cray.tell("setupRoot.13", "silent")
    cray.tell("unsetupRoot.13", "silent")
    assert prologue(cray)[0] == 2
    assert cray.calls("xtprocadmin")[0] == "-k s admindown -n 13"
    assert "no answer" in json.loads((cray.directory / "spool/nodes/nid00013.json").read_text())["reason"]


def test_epilogue_with_dirty_node(cray: StandIns) -> None:
    assert prologue(cray)[0] == 0
    cray.tell("unsetupRoot.12", "failed 9 8 - mounts=1 mount /var/udi is busy")
    code, err = epilogue(cray)
    assert code == 0 and err.count("\n") == 1 and "cleanup failed on nid00012; taken out of service" in err
    record = json.loads((cray.directory / "spool/nodes/nid00012.json").read_text())
    assert "mount /var/udi is busy" in record["reason"] and record["jobs"] == [JOB]
    assert states(cray) == []


def test_epilogue_when_nodes_cannot_be_marked(cray: StandIns) -> None:
    assert prologue(cray)[0] == 0
    cray.tell("unsetupRoot.12", "silent")
    cray.tell("xtprocadmin.exit", "3")
    code, err = epilogue(cray)
    assert code == 8 and "cleanup failed on nid00012, which could not be taken out of service" in err
    assert (cray.directory / "spool/nodes/nid00012.json").exists()


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
    assert code == 2 and "[site error (not your job's fault); job requeued]" in err
    assert time.monotonic() - began < 30
    assert states(cray) == [] and cray.plans() == []


def test_missing_tool_makes_no_node_suspect(cray: StandIns) -> None:
    (cray.bin / "xtxqtcmd").unlink()
    code, err = prologue(cray)
    assert code == 2 and "not an executable program" in err
    assert states(cray) == [] and cray.plans() == [] and cray.calls("xtprocadmin") == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signal_is_caught_and_undone(cray: StandIns, number: signal.Signals) -> None:
    cray.tell("setupRoot.hang", "")
    cray.tell("setupRoot.12", "silent")
    process = _start(cray, "prologue", JOB, "root", "root", "run", "", "batch", "")
    while not cray.calls("xtxqtcmd"):
        time.sleep(0.02)
    process.send_signal(number)
    code, err = _finish(process)
    assert code == 2 and f"interrupted by {number.name}" in err
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
    cray.config_path.write_text('[store]\npth = "/s"\n')
    code, err = prologue(cray)
    assert code == 2 and "unknown key store.pth" in err and "Traceback" not in err


def test_deadlines_that_do_not_fit_requeue(cray: StandIns) -> None:
    text = cray.config_path.read_text()
    cray.config_path.write_text(text.replace("prologue_deadline = 12", "prologue_deadline = 1"))
    code, err = prologue(cray)
    assert code == 2 and "torque.prologue_deadline must each fit in the next" in err and err.count("\n") == 1
    assert cray.calls("qstat") == []


def test_log_names_the_job(cray: StandIns) -> None:
    prologue(cray)
    text = (cray.directory / "log/hooks.log").read_text()
    assert f"job {JOB} INFO image debian:12 ready on 2 nodes" in text
    assert "Reply (complete)" not in text, "what the machine prints matters only where nodes fail"


# Signals at any moment, any number of them

_STORM = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


def storm(process: subprocess.Popen[str], numbers: tuple[signal.Signals, ...]) -> None:
    """Signals until the process has ended."""
    while process.poll() is None:
        for number in numbers:
            process.send_signal(number)
        time.sleep(0.001)


@pytest.mark.parametrize("numbers", [_STORM, (*_STORM, signal.SIGALRM)])
def test_a_storm_of_signals_is_one_interruption(cray: StandIns, numbers: tuple[signal.Signals, ...]) -> None:
    """Whatever of the undoing is left by alarms of others, the epilogue does, since there is a state."""
    cray.tell("setupRoot.12", "silent")
    cray.tell("setupRoot.hang", "")
    process = _start(cray, "prologue", JOB, "root", "root", "run", "", "batch", "")
    wait_for(lambda: cray.calls("xtxqtcmd") != [])
    storm(process, numbers)
    code, err = _finish(process)
    assert code == 2 and err.count("\n") == 1 and "interrupted by" in err
    (cray.bin / "setupRoot.hang").unlink()
    assert epilogue(cray) == (0, "")
    assert states(cray) == [] and cray.plans() == []
    assert cray.calls("xtxqtcmd")[-1].startswith("unsetupRoot")


def test_no_signal_ends_an_epilogue(cray: StandIns) -> None:
    assert prologue(cray) == (0, "")
    cray.tell("unsetupRoot.12", "silent")
    cray.tell("unsetupRoot.hang", "")
    arguments = ("root", "root", "run", "11", "nodes=2", "cput=0", "batch", "", "0", "/x.SC")
    process = _start(cray, "epilogue", JOB, *arguments)
    wait_for(lambda: len(cray.calls("xtxqtcmd")) == 2)
    storm(process, _STORM)
    code, err = _finish(process)
    assert code == 0 and "taken out of service" in err
    assert states(cray) == []


@pytest.mark.parametrize("account", [0, 990])
def test_a_prologue_ends_with_the_process_that_pbs_mom_knows(account: int) -> None:
    """Torque starts the job when that is killed, and its epilogue must not come before what would be found by it. By
    then it has read the store, with the rights of its account."""
    with directory_for_all("udi-prologue-") as directory:
        cray = StandIns(directory)
        cray.qstat_job("PBS_O_HOME=/root,UDI=debian:12")
        cray.config_path.write_text(cray.config_path.read_text().replace('account = "0"', f'account = "{account}"'))
        for path in (cray.store, *cray.store.rglob("*")):
            os.chown(path, account, account)
        cray.tell("setupRoot.12", "silent")
        cray.tell("setupRoot.hang", "")
        files = site_files(cray.site, Renderer(cray.site, str(cray.config_path)))
        hook = cray.directory / "prologue"
        hook.write_text(next(file.text for file in files if file.path.endswith("/prologue")))
        process = subprocess.Popen(
            ["sh", str(hook), JOB, "root", "root", "run", "", "batch", ""], stderr=subprocess.PIPE, text=True
        )
        wait_for(lambda: cray.calls("xtxqtcmd") != [])
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert process.communicate()[1] == "", "the job has begun to write there"
        assert states(cray) == [] and cray.calls("qhold") == []
        assert [call.split()[0] for call in cray.calls("xtxqtcmd")] == ["setupRoot", "unsetupRoot"]
