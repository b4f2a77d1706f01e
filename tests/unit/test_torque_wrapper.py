"""The installed prologue as pbs_mom runs it: how often it runs qstat, and what Python gets of that answer."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.unit.cray_standins import IMAGE_ID, StandIns
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


def prologue(cray: StandIns, shell: str, script: Path | None = None) -> tuple[int, str]:
    files = site_files(cray.site, Renderer(cray.site, str(cray.config_path)))
    hook = cray.directory / "prologue"
    hook.write_text(next(file.text for file in files if file.path.endswith("/prologue")))
    arguments = (*ARGUMENTS, str(script)) if script else ARGUMENTS
    done = subprocess.run(
        [shell, str(hook), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={"PATH": "/bin:/usr/bin", "LANG": "C.UTF-8"},
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout


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
