"""The installed submit filter: it passes scripts on, also where its program cannot be started."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.cray_standins import StandIns
from tests.unit.rendered_site import find, rendered


@pytest.fixture
def cray(tmp_path: Path) -> StandIns:
    return StandIns(tmp_path)


PLAIN = {"PATH": "/usr/bin:/bin"}


SHELLS = ("sh", "bash", "busybox sh")


@pytest.fixture
def shell(request: pytest.FixtureRequest) -> list[str]:
    words = str(request.param).split()
    if not shutil.which(words[0]):
        pytest.skip(f"needs {words[0]}")
    return words


CANNOT_START = {
    "crashing": "kill -SEGV $$",
    "killed": "kill -KILL $$",
    "without its standard library": "echo 'Fatal Python error: init_fs_encoding' >&2; exit 1",
    "without a library": "echo 'error while loading shared libraries' >&2; exit 127",
    "without its loader": "",
}


FAULTS = ("missing", "not executable", "a directory", "in a closed directory", "without the package", "foreign")


BROKEN = pytest.mark.parametrize(
    ("shell", "filter_without_program"),
    [*(("sh", fault) for fault in (*FAULTS, *CANNOT_START)), ("bash", "crashing"), ("busybox sh", "killed")],
    indirect=True,
)


@pytest.fixture
def filter_without_program(cray: StandIns, request: pytest.FixtureRequest) -> Path:
    """The installed filter, whose interpreter or package is gone."""
    python = cray.directory / "environment/python3"
    python.parent.mkdir()
    match request.param:
        case "not executable":
            python.write_text("")
        case "a directory":
            python.mkdir()
        case "in a closed directory":
            python = cray.directory / "environment/python3/x"
            python.parent.write_text("")
        case "without the package":
            python = Path("/usr/bin/python3")
        case "foreign":
            python.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xb7\x00" + bytes(44))
            python.chmod(0o755)
        case "without its loader":
            python.write_text("#!/no/such/loader\n")
            python.chmod(0o755)
        case fault if fault in CANNOT_START:
            python.write_text(f"#!/bin/sh\n{CANNOT_START[fault]}\n")
            python.chmod(0o755)
    script = find(rendered(cray), "udi-submit-filter")
    text = re.sub(r"^python=.*$", f"python={python}", script.read_text(), flags=re.MULTILINE)
    script.write_text(text)
    return script


SCRIPT = b"#!/bin/sh\n#PBS -l nodes=2\necho UDI=1 studio \0\xff\nno newline"


@pytest.mark.parametrize("shell", SHELLS, indirect=True)
def test_the_installed_filter_passes_its_arguments_on(cray: StandIns, shell: list[str]) -> None:
    script = find(rendered(cray), "udi-submit-filter")
    for arguments, code, out in ((["-l", "x y", "job.sh"], 0, SCRIPT), (["-v", "udi=debian:12"], 255, b"")):
        done = subprocess.run([*shell, script, *arguments], input=SCRIPT, capture_output=True, env=PLAIN, check=False)
        assert (done.returncode, done.stdout) == (code, out)
        assert done.stderr.count(b"\n") == (code != 0)
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*shell, script], input=SCRIPT, stdout=full, stderr=subprocess.PIPE, env=PLAIN, check=False
        )
    assert done.returncode == 1 and done.stderr.count(b"\n") == 1


@BROKEN
def test_a_missing_program_costs_a_job_without_an_image_nothing(filter_without_program: Path, shell: list[str]) -> None:
    for arguments in ([], ["-l", "nodes=2", "job.sh"], ["-v", "A=1,STUDI=x,MY_UDI=3"]):
        for script in (SCRIPT, b"\n\n"):
            done = subprocess.run(
                [*shell, filter_without_program, *arguments], input=script, capture_output=True, env=PLAIN, check=False
            )
            assert (done.returncode, done.stdout, done.stderr) == (0, script, b"")


@BROKEN
def test_a_missing_program_refuses_a_job_with_an_image(filter_without_program: Path, shell: list[str]) -> None:
    submissions: list[tuple[list[str], bytes, dict[str, str]]] = [
        (["-v", "UDI=debian:12"], SCRIPT, {}),
        (["-vUDI=debian:12"], SCRIPT, {}),
        (["-v", "A=1,UDI=debian:12"], SCRIPT, {}),
        (["-v", "UDI"], SCRIPT, {"UDI": "x"}),
        (["-V"], SCRIPT, {"UDI": "x"}),
        ([], b"#!/bin/sh\n#PBS -v UDI=debian:12\n", {}),
        ([], b"#!/bin/sh\n#PBS -N x -v A=1,UDI\n", {}),
    ]
    for arguments, script, environment in submissions:
        done = subprocess.run(
            [*shell, filter_without_program, *arguments],
            input=script,
            capture_output=True,
            env=PLAIN | environment,
            check=False,
        )
        assert (done.returncode, done.stdout) == (255, b"")
        assert b"site error, not your job's fault" in done.stderr and done.stderr.count(b"\n") == 1


def test_a_script_that_died_with_the_program_is_not_submitted_empty(cray: StandIns) -> None:
    """qsub takes an empty script, prints an id, and makes no job of it."""
    python = cray.directory / "python3"
    python.write_text("#!/bin/sh\ncat >/dev/null\nkill -KILL $$\n")
    python.chmod(0o755)
    script = find(rendered(cray), "udi-submit-filter")
    text = script.read_text()
    for old, new in ((sys.executable, str(python)), ("code = main()", "os.read(0, 1 << 20); raise MemoryError")):
        assert old in text
        script.write_text(text.replace(old, new))
        done = subprocess.run(["sh", script], input=SCRIPT, capture_output=True, env=PLAIN, check=False)
        assert (done.returncode, done.stdout) == (255, b"") and done.stderr.count(b"\n") == 1
