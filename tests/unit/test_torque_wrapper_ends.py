"""The installed prologue and epilogue start Python for jobs with images only, and where they are in doubt."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.unit.cray_standins import StandIns
from tests.unit.rendered_site import ARGUMENTS, find, rendered, sh


@pytest.fixture
def cray(tmp_path: Path) -> StandIns:
    return StandIns(tmp_path)


def with_python(cray: StandIns, path: Path, said: str = "python") -> Path:
    """The script with a program that only says its last arguments in Python's place, as a success."""
    fake = cray.directory / "fake python"
    success = re.search(r"^(\d+) \|", path.read_text(), re.MULTILINE)
    fake.write_text(f'#!/bin/sh\nshift 3\necho "{said} $*"\nexit {success[1] if success else 0}\n')
    fake.chmod(0o755)
    changed = path.with_suffix(".changed")
    changed.write_text(path.read_text().replace(sys.executable, f"'{fake}'"))
    changed.chmod(0o755)
    return changed


def test_prologue_ends_before_python(cray: StandIns) -> None:
    script = with_python(cray, find(rendered(cray), "prologue"))
    body = cray.directory / "123.SC"
    body.write_text("#!/bin/sh\nhostname\n")
    cray.qstat_job("PBS_O_HOME=/home/u")
    assert sh(script, *ARGUMENTS, body) == (0, "")
    assert sh(script, *ARGUMENTS) == (0, "")


@pytest.mark.parametrize(
    "doubt", ["wanted", "pinned", "qstat fails", "qstat empty", "qstat cut", "arguments", "unreadable"]
)
def test_prologue_hands_doubts_on(cray: StandIns, doubt: str) -> None:
    script = with_python(cray, find(rendered(cray), "prologue"))
    body = cray.directory / "123.SC"
    body.write_text("#!/bin/sh\nhostname\n")
    cray.qstat_job("PBS_O_HOME=/home/u,UDI=debian:12" if doubt == "wanted" else "PBS_O_HOME=/home/u")
    words = [*ARGUMENTS, str(body)]
    match doubt:
        case "pinned":
            body.write_bytes(b"\0#!/bin/sh\n#UDI pinned x y\n")
        case "qstat fails":
            cray.tell("qstat.exit", "1")
        case "qstat empty":
            cray.tell("qstat.out", "")
        case "qstat cut":
            cray.tell("qstat.out", "<Data><Job>")
        case "arguments":
            words = words[:3]
        case "unreadable":
            body.unlink()
            body.mkdir()
    code, said = sh(script, *words)
    assert code == 0 and said.startswith(f"python --config {cray.config_path} 123.sdb")


def test_epilogue_ends_before_python(cray: StandIns) -> None:
    script = with_python(cray, find(rendered(cray), "epilogue"))
    for job in ("123.sdb", "../jobs", "", "..", "a/b", "12 3", "$(id)", "*"):
        assert sh(script, job) == (0, "")
    for job in ("123.sdb", "123[4].sdb"):
        (cray.directory / f"spool/jobs/{job}").mkdir(parents=True)
        assert sh(script, job, "u") == (0, f"python --config {cray.config_path} {job} u\n")
