"""The installed prologue as pbs_mom runs it: how often it runs qstat, and what Python gets of that answer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.cray_standins import IMAGE_ID, StandIns, wait_for
from torque_hooks.site_files import site_files
from udi.sitefiles import Renderer

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="hooks are root's, and so is their configuration")

ARGUMENTS = ("123.sdb", "root", "root", "run", "nodes=2:ppn=2", "batch", "")


@pytest.fixture
def cray(tmp_path: Path) -> StandIns:
    return StandIns(tmp_path)


@pytest.fixture(params=["sh", "bash", "ksh"])
def shell(request: pytest.FixtureRequest) -> str:
    found: str | None = shutil.which(str(request.param))
    if found is None:
        pytest.skip(f"needs {request.param}")
    return found


def installed(cray: StandIns) -> Path:
    files = site_files(cray.site, Renderer(cray.site, str(cray.config_path)))
    hook = cray.directory / "prologue"
    hook.write_text(next(file.text for file in files if file.path.endswith("/prologue")))
    return hook


def started(cray: StandIns, shell: str, script: Path | None = None) -> subprocess.Popen[str]:
    arguments = (*ARGUMENTS, str(script)) if script else ARGUMENTS
    return subprocess.Popen(
        [shell, str(installed(cray)), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={"PATH": "/bin:/usr/bin", "LANG": "C.UTF-8"},
    )


def prologue(cray: StandIns, shell: str, script: Path | None = None) -> tuple[int, str]:
    hook = started(cray, shell, script)
    output, _ = hook.communicate(timeout=60)
    return hook.returncode, output


def test_a_job_without_an_image_is_looked_up_once_and_starts_no_python(cray: StandIns, shell: str) -> None:
    cray.qstat_job("PBS_O_HOME=/root,A=1")
    assert prologue(cray, shell) == (0, "")
    assert cray.calls("qstat") == ["-x 123.sdb"]
    assert not (cray.directory / "log").exists()


def test_a_job_with_an_image_is_looked_up_once(cray: StandIns, shell: str) -> None:
    cray.qstat_job("PBS_O_HOME=/root,UDI=debian:12,QUOTES='\"\\,x é☃ $(id) `id` \\\\")
    assert prologue(cray, shell) == (0, "")
    assert cray.calls("qstat") == ["-x 123.sdb"]
    assert cray.calls("xtxqtcmd") == ["setupRoot nid00012 nid00013 "]


def test_a_job_with_a_pin_is_looked_up_once(cray: StandIns, shell: str, tmp_path: Path) -> None:
    script = tmp_path / "123.SC"
    script.write_text(f"#!/bin/sh\n#UDI pinned debian:12 {IMAGE_ID}\naprun x\n")
    cray.qstat_job("UDI=debian:12")
    assert prologue(cray, shell, script) == (0, "")
    assert cray.calls("qstat") == ["-x 123.sdb"]


@pytest.mark.parametrize(("size", "calls"), [(90_000, 1), (700_000, 2)])
@pytest.mark.parametrize("character", ["x", "☃"])
def test_long_answers(cray: StandIns, shell: str, size: int, calls: int, character: str) -> None:
    """What no variable of the environment can hold, the program gets by its own qstat."""
    filling = character * (size // len(character.encode()))
    cray.qstat_job(f"FILLING={filling},UDI=debian:12")
    assert prologue(cray, shell) == (0, "")
    assert len(cray.calls("qstat")) == calls


def test_qstat_that_fails_is_run_again_by_the_program(cray: StandIns, shell: str) -> None:
    cray.qstat_job("UDI=debian:12")
    cray.tell("qstat.exit", "1")
    code, output = prologue(cray, shell)
    assert code == 2 and "qstat exited with 1" in output
    assert len(cray.calls("qstat")) == 2


def test_the_answer_is_not_passed_on(cray: StandIns, shell: str) -> None:
    """The user's variables are no business of the commands that the hook runs."""
    cray.program("xtxqtcmd", f'#!/bin/sh\nenv >"{cray.directory}/seen"\nexit 1\n')
    cray.qstat_job("SECRET=abc,UDI=debian:12")
    prologue(cray, shell)
    assert "SECRET" not in (cray.directory / "seen").read_text()


def test_only_the_wrappers_own_answer_counts(cray: StandIns) -> None:
    """One that the caller's environment has is dropped."""
    cray.qstat_job("PBS_O_HOME=/root,UDI=debian:12")
    cray.tell("qstat.exit", "1")
    answer = (cray.bin / "qstat.out").read_text()
    files = site_files(cray.site, Renderer(cray.site, str(cray.config_path)))
    hook = cray.directory / "prologue"
    hook.write_text(next(file.text for file in files if file.path.endswith("/prologue")))
    environment = {"PATH": "/bin:/usr/bin", "UDI_QSTAT_ANSWER": answer}
    done = subprocess.run(["sh", str(hook), *ARGUMENTS], env=environment, capture_output=True, check=False)
    assert done.returncode == 2


def test_a_hostile_environment_changes_nothing(cray: StandIns, tmp_path: Path) -> None:
    """Should a batch system ever hand over the user's, as one did: no program and no module of it runs."""
    cray.qstat_job("PBS_O_HOME=/root,UDI=debian:12")
    evil, ran = tmp_path / "evil", tmp_path / "ran"
    (evil / "admin").mkdir(parents=True)
    for name in ("grep", "head", "timeout", "qstat", "python3", "sleep", "env"):
        (evil / name).write_text(f"#!/bin/sh\necho {name} >> {ran}\n")
        (evil / name).chmod(0o755)
    for name in ("sitecustomize.py", "usercustomize.py", "os.py", "admin/__init__.py"):
        (evil / name).write_text(f"open({str(ran)!r}, 'a').write({name!r})\n")
    (evil / "start").write_text(f"echo start >> {ran}\n")
    names = ("PATH", "PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "HOME", "CDPATH")
    environment = {name: str(evil) for name in names}
    environment |= {"ENV": f"{evil}/start", "PYTHONSTARTUP": f"{evil}/os.py", "IFS": "/"}
    hook = subprocess.Popen(
        ["/bin/sh", str(installed(cray)), *ARGUMENTS],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=evil,
        env=environment,
    )
    output, _ = hook.communicate(timeout=60)
    assert (hook.returncode, output) == (0, "")
    assert cray.calls("xtxqtcmd") == ["setupRoot nid00012 nid00013 "]
    assert not ran.exists(), ran.read_text()


# An interpreter that cannot start

PYTHONS = {
    "another architecture": b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xb7\x00" + bytes(44),
    "no loader": b"#!/no/such/loader\n",
    "no standard library": b"#!/bin/sh\necho 'Fatal Python error: init_fs_encoding' >&2\nexit 1\n",
    "a library is missing": b"#!/bin/sh\necho 'error while loading shared libraries' >&2\nexit 127\n",
    "not executable": b"#!/bin/sh\nexit 126\n",
    "it crashes": b"#!/bin/sh\nkill -SEGV $$\n",
    "it is killed": b"#!/bin/sh\nkill -KILL $$\n",
    "it does nothing": b"#!/bin/sh\nexit 0\n",
    "a directory": b"",
}
NAMES_NO_IMAGE, NAMES_AN_IMAGE = "#!/bin/sh\naprun x\n", "#!/bin/sh\n#PBS -v A=1,UDI\naprun x\n"


@pytest.fixture
def no_python(cray: StandIns, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> StandIns:
    """The interpreter of the site's software is broken in one way."""
    path = cray.directory / "python3"
    content = PYTHONS[str(request.param)]
    if content:
        path.write_bytes(content)
        path.chmod(0o755)
    else:
        path.mkdir()
    monkeypatch.setattr(sys, "executable", str(path))
    return cray


BROKEN = [("sh", fault) for fault in PYTHONS] + [("bash", "it crashes"), ("ksh", "it crashes")]


@pytest.mark.parametrize(("shell", "no_python"), BROKEN, indirect=True)
def test_without_an_interpreter_jobs_with_an_image_are_held(no_python: StandIns, shell: str) -> None:
    no_python.qstat_job("UDI=debian:12")
    code, output = prologue(no_python, shell)
    assert (code, output.count("\n")) == (2, 1), output
    assert output.startswith("udi-prologue: ") and "(not your job's fault); job held]" in output
    assert no_python.calls("qhold") == ["-h s 123.sdb"]


@pytest.mark.parametrize(("shell", "no_python"), BROKEN, indirect=True)
@pytest.mark.parametrize("qstat", ["0", "1"])
def test_without_an_interpreter_jobs_without_an_image_run(
    no_python: StandIns, shell: str, tmp_path: Path, qstat: str
) -> None:
    no_python.qstat_job("PBS_O_HOME=/root")
    no_python.tell("qstat.exit", qstat)
    script = tmp_path / "123.SC"
    script.write_text(NAMES_NO_IMAGE)
    assert prologue(no_python, shell, script) == (0, "")
    assert prologue(no_python, shell, tmp_path / "interactive.SC") == (0, "")
    script.write_text(NAMES_AN_IMAGE)
    assert prologue(no_python, shell, script)[0] == (2 if qstat == "1" else 0)


@pytest.mark.parametrize("no_python", ["it crashes"], indirect=True)
@pytest.mark.parametrize(("job", "prefix"), [("123.sdb", "123.sdb"), ("12[3].sdb", "12-3.sdb"), ("12[30]", "12-30")])
def test_the_script_is_found_where_torque_does_not_tell_its_path(
    no_python: StandIns, shell: str, job: str, prefix: str
) -> None:
    """Nobody answers but the script: it is a job without an image if it names none."""
    no_python.tell("qstat.exit", "1")
    hook = [shell, str(installed(no_python)), job, *ARGUMENTS[1:]]
    assert subprocess.run(hook, capture_output=True, check=False).returncode == 2, "nobody knows"
    jobs = no_python.directory / "mom_priv/jobs"
    jobs.mkdir(parents=True)
    (jobs / f"{prefix}.SC").write_text(NAMES_NO_IMAGE)
    assert subprocess.run(hook, capture_output=True, check=False).returncode == 0
    (jobs / f"{prefix}.SC").write_text(NAMES_AN_IMAGE)
    assert subprocess.run(hook, capture_output=True, check=False).returncode == 2


@pytest.mark.parametrize("no_python", ["it crashes"], indirect=True)
def test_a_hold_that_is_refused_sends_the_job_back(no_python: StandIns) -> None:
    no_python.qstat_job("UDI=debian:12")
    no_python.tell("qhold.exit", "1")
    code, output = prologue(no_python, "sh")
    assert code == 2 and "job requeued" in output


def test_a_signal_reaches_the_program(cray: StandIns, shell: str) -> None:
    """pbs_mom, and people, signal the process that they know; what was set up is undone then, and the job sent back."""
    cray.qstat_job("UDI=debian:12")
    cray.tell("setupRoot.hang", "")
    cray.tell("setupRoot.12", "silent")
    hook = started(cray, shell)
    wait_for(lambda: cray.calls("xtxqtcmd") != [])
    for _ in range(3):
        hook.terminate()
    output, _ = hook.communicate(timeout=60)
    assert hook.returncode == 2 and "interrupted by SIGTERM" in output
    assert [call.split()[0] for call in cray.calls("xtxqtcmd")] == ["setupRoot", "unsetupRoot"]


@pytest.mark.parametrize("answer", ["", "\0", "<Data><Job><Job_Id>123.sdb", "x" * 10_000_000, "</Job>\0 0"])
def test_an_answer_that_is_garbage_is_not_gone_by(cray: StandIns, shell: str, answer: str) -> None:
    cray.tell("qstat.out", answer)
    code, output = prologue(cray, shell)
    assert code == 2 and output.count("\n") == 1 and "qstat" in output


def test_a_closed_stderr(cray: StandIns, shell: str) -> None:
    cray.qstat_job("UDI=debian:12")
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" 2>&- >&-', "sh", shell, str(installed(cray)), *ARGUMENTS], check=False
    )
    assert done.returncode == 0
    assert cray.calls("xtxqtcmd") == ["setupRoot nid00012 nid00013 "]
