"""Programs whose output nobody takes, or cannot be written: an exit code and at most one line, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = {
    "udi": "outside.cli",
    "udi-gateway": "gateway.service.cli",
    "udi-admin": "admin.cli",
    "udi-nodehealth": "admin.nodehealth_cli",
}


@pytest.fixture(params=PROGRAMS)
def program(request: pytest.FixtureRequest) -> list[str]:
    return [sys.executable, "-c", f"from {PROGRAMS[request.param]} import main; main()"]


def shell(program: list[str], arguments: str, ends: str) -> subprocess.CompletedProcess[str]:
    """A program with its streams redirected as a shell does; the first two words of `ends` may go before it."""
    line = f'"$@" {arguments} {ends}'
    return subprocess.run(["/bin/sh", "-c", line, "sh", *program], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", ["--help", "--version"])
def test_a_full_disk(program: list[str], arguments: str) -> None:
    done = shell(program, arguments, ">/dev/full")
    assert done.returncode == 6
    assert done.stderr.endswith(": output cannot be written: no space left on device\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "ends", "code"),
    [
        ("--help", ">&-", 0),
        ("--help", "<&- >&- 2>&-", 0),
        ("--nonsense", "2>&-", 2),
        ("--nonsense", "2>/dev/full", 2),
        ("--nonsense", ">/dev/full 2>/dev/full", 2),
        ("--config /nonexistent nothing", "<&- >&- 2>&-", 2),
    ],
)
def test_closed_and_full_streams(program: list[str], arguments: str, ends: str, code: int) -> None:
    done = shell(program, arguments, ends)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


def test_a_reader_that_is_gone(program: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as stream:
        done = subprocess.run([*program, "--help"], stdout=stream, stderr=subprocess.PIPE, check=False)
    assert done.returncode in (1, 141) and done.stderr == b""


def test_a_closed_stream_is_no_file_of_the_programs(tmp_path: Path) -> None:
    """What is written to it must not land in the next file that the program opens."""
    code = f"""
import click
from udi.commandline import run

@click.command()
def main():
    with open({str(tmp_path / "file")!r}, "w") as stream:
        click.echo("for nobody")
        stream.write("for the file")

run(main, "main")
"""
    assert shell([sys.executable, "-c", code], "", ">&-").returncode == 0
    assert (tmp_path / "file").read_text() == "for the file"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        ("PermissionError(13, 'Permission denied', '/x')", "main: /x: permission denied\n"),
        ("OSError(5, 'Input/output error')", "main: output cannot be written: input/output error\n"),
    ],
)
def test_an_error_of_the_system_is_a_line(error: str, line: str) -> None:
    code = f"""
import click
from udi.commandline import run

@click.command()
def main():
    raise {error}

run(main, "main")
"""
    done = shell([sys.executable, "-c", code], "", "")
    assert (done.returncode, done.stderr) == (6, line)
