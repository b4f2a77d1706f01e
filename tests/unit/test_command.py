"""Running the site's commands: exit codes, deadlines, output, and nothing left running."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from udi.command import Deadline, Late, run
from udiroot.errors import UpstreamFailed


def test_output_and_exit_code() -> None:
    done = run(["/bin/sh", "-c", "echo out; echo err >&2; exit 3"], seconds=10)
    assert (done.exit_code, done.stdout, done.stderr) == (3, b"out\n", b"err\n")
    with pytest.raises(UpstreamFailed, match="exited with 3: err"):
        done.require_success()


def test_stdin_and_clean_environment() -> None:
    assert run(["/bin/cat"], seconds=10, stdin=b"x" * 300_000).stdout == b"x" * 300_000
    names = {line.split(b"=")[0] for line in run(["/usr/bin/env"], seconds=10).stdout.splitlines()}
    assert names == {b"PATH", b"LANG", b"LC_ALL"}


def test_no_shell_between() -> None:
    assert run(["/bin/echo", "$(id)", "`id`", "a b"], seconds=10).stdout == b"$(id) `id` a b\n"


def test_deadline_ends_the_whole_session_and_keeps_what_was_printed(tmp_path: Path) -> None:
    mark = tmp_path / "alive"
    script = f"echo before; (sleep 1; touch {mark}) & sleep 60"
    began = time.monotonic()
    with pytest.raises(Late) as caught:
        run(["/bin/sh", "-c", script], seconds=0.3)
    assert time.monotonic() - began < 5
    assert caught.value.partial == b"before\n"
    time.sleep(1.2)
    assert not mark.exists()


def test_enough_was_seen() -> None:
    seen: list[str] = []

    def on_line(line: str) -> bool:
        seen.append(line)
        return line == "two"

    done = run(["/bin/sh", "-c", "echo one; echo two >&2; sleep 60"], seconds=30, on_line=on_line)
    assert (done.exit_code, seen) == (0, ["one", "two"])


def test_last_line_without_newline_is_seen() -> None:
    seen: list[str] = []

    def on_line(line: str) -> bool:
        seen.append(line)
        return False

    run(["/usr/bin/printf", "one\\ntwo"], seconds=10, on_line=on_line)
    assert seen == ["one", "two"]


def test_what_cannot_be_run_and_what_a_signal_ended() -> None:
    with pytest.raises(UpstreamFailed, match="cannot run /no/such/program: no such file"):
        run(["/no/such/program"], seconds=1)
    with pytest.raises(UpstreamFailed, match="terminated by signal 9"):
        run(["/bin/sh", "-c", "kill -9 $$"], seconds=10)
    with pytest.raises(Late, match="no time left"):
        run(["/bin/true"], seconds=0)


def test_deadline() -> None:
    assert Deadline(-1).passed
    assert Deadline(100).left(5) == 5


def test_a_killed_caller_leaves_no_command_behind(tmp_path: Path) -> None:
    mark = tmp_path / "alive"
    code = f"from udi.command import run; run(['/bin/sh', '-c', 'sleep 1; touch {mark}'], seconds=60)"
    caller = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    time.sleep(0.5)
    caller.kill()
    caller.wait()
    time.sleep(1.2)
    assert not mark.exists()
