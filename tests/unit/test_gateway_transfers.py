"""Running rsync and ssh: exit codes, all of the output, a deadline that no process survives."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from gateway.service.transfers import run_remote
from tests.gone import require_gone
from udi.command import ENVIRONMENT, Late
from udiroot.errors import UpstreamFailed

SH = "/bin/sh"


def test_the_exit_code_and_both_outputs_are_kept() -> None:
    done = run_remote([SH, "-c", "echo out; echo err >&2; exit 7"], 10)
    assert (done.program, done.exit_code, done.stdout, done.stderr) == (SH, 7, b"out\n", b"err\n")
    with pytest.raises(UpstreamFailed, match="exited with 7: err"):
        done.require_success()
    assert run_remote(["/bin/true"], 10).require_success().exit_code == 0


def test_arguments_environment_and_directory_are_passed_unchanged() -> None:
    done = run_remote([SH, "-c", 'printf "%s|" "$@"; pwd; env', "sh", "a b", "*", "$HOME", "ü"], 10)
    first, *environment = done.stdout.decode().splitlines()
    assert first == "a b|*|$HOME|ü|/"
    assert ENVIRONMENT.items() <= dict(line.split("=", 1) for line in environment).items()
    assert not {line.split("=")[0] for line in environment} - {*ENVIRONMENT, "PWD", "OLDPWD", "SHLVL", "_"}


@pytest.mark.parametrize("attempt", range(5))
def test_all_of_a_long_output_is_kept(attempt: int) -> None:
    done = run_remote([SH, "-c", "head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2; printf end"], 20)
    assert done.stdout == bytes(300_000) + b"end"
    assert done.stderr == bytes(300_000)


def test_no_process_survives_the_deadline(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    start = time.monotonic()
    with pytest.raises(Late, match="did not finish within 1 s") as late:
        run_remote([SH, "-c", f"echo begun; (sleep 60 & echo $! >>{pids}; sleep 60) & echo $! >>{pids}; wait"], 1)
    assert time.monotonic() - start < 30
    assert late.value.partial == b"begun\n"
    require_gone(pids)


def test_a_process_left_in_the_background_is_killed_and_not_waited_for(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    start = time.monotonic()
    done = run_remote([SH, "-c", f"sleep 60 & echo $! >{pids}; echo done"], 30)
    assert (done.exit_code, done.stdout) == (0, b"done\n")
    assert time.monotonic() - start < 30
    require_gone(pids)


def test_a_program_that_was_killed_is_an_error() -> None:
    with pytest.raises(UpstreamFailed, match="terminated by signal 9"):
        run_remote([SH, "-c", "kill -9 $$"], 10)


def test_an_absent_program_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UpstreamFailed, match="cannot run /no/rsync"):
        run_remote(["/no/rsync"], 10)
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"\x7fELF")
    garbage.chmod(0o755)
    with pytest.raises(UpstreamFailed, match="cannot run"):
        run_remote([str(garbage)], 10)


def test_without_time_nothing_is_run() -> None:
    with pytest.raises(Late, match="no time left"):
        run_remote(["/bin/true"], 0)
