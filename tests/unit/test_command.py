"""Running the site's commands: exit codes, deadlines, output, and nothing left running."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.gone import require_gone
from udi.command import Deadline, Late, run, run_fed
from udiroot.errors import ImageInvalid, UpstreamFailed
from xcsim.processes import wait_until


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
    script = f"echo before; sleep 60 & echo $! >{tmp_path}/pids; sleep 60"
    began = time.monotonic()
    with pytest.raises(Late) as caught:
        run(["/bin/sh", "-c", script], seconds=2)
    assert time.monotonic() - began < 30
    assert caught.value.partial == b"before\n"
    require_gone(tmp_path / "pids")


def test_enough_was_seen() -> None:
    seen: list[str] = []

    def on_line(line: str) -> bool:
        seen.append(line)
        return line == "two"

    done = run(["/bin/sh", "-c", "echo one; echo two >&2; sleep 60"], seconds=30, on_line=on_line)
    assert (done.exit_code, seen) == (0, ["one", "two"])


def test_of_output_that_is_read_line_by_line_only_the_end_is_kept() -> None:
    """A fan-out to fifty thousand nodes prints megabytes, of which an error shows the last line."""
    seen: list[str] = []

    def on_line(line: str) -> bool:
        seen.append(line)
        return False

    done = run(["/usr/bin/seq", "100000"], seconds=30, on_line=on_line)
    assert len(seen) == 100_000
    assert len(done.stdout) == 1 << 16
    assert done.stdout.endswith(b"\n99999\n100000\n")


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
    pid = tmp_path / "pid"
    code = (
        "import sys\nfrom pathlib import Path\nfrom udi.command import run\n"
        "told = Path(sys.argv[1]).write_bytes\n"  # by then, the command is tied to its caller
        "run(['/bin/sh', '-c', 'echo $$; exec sleep 60'], seconds=60, on_stdout=told)"
    )
    caller = subprocess.Popen([sys.executable, "-c", code, pid], cwd=Path(__file__).parents[2])
    assert wait_until(lambda: pid.exists() and pid.read_text().endswith("\n"), 30)
    caller.kill()
    caller.wait()
    require_gone(pid)


def test_stdout_in_pieces_is_not_kept_and_the_environment_is_added_to() -> None:
    pieces: list[bytes] = []
    script = "echo $EXTRA; echo $LC_ALL; echo err >&2"
    done = run(["/bin/sh", "-c", script], seconds=10, on_stdout=pieces.append, environment={"EXTRA": "x"})
    assert (b"".join(pieces), done.stdout, done.stderr) == (b"x\nC\n", b"", b"err\n")


def test_merged_output() -> None:
    done = run(["/bin/sh", "-c", "echo one; echo two >&2; exit 1"], seconds=10, merge=True)
    with pytest.raises(UpstreamFailed, match="exited with 1: two"):
        done.require_success()


def test_what_a_signal_ended_explains_itself() -> None:
    with pytest.raises(UpstreamFailed, match="terminated by signal 6: out of something"):
        run(["/bin/sh", "-c", "echo out of something >&2; kill -ABRT $$"], seconds=10)


@pytest.mark.parametrize("pidfd", [True, False])
def test_an_exit_is_seen_at_once_with_and_without_the_kernels_report(
    monkeypatch: pytest.MonkeyPatch, pidfd: bool
) -> None:
    if not pidfd:
        monkeypatch.delattr(os, "pidfd_open")
    began = time.monotonic()
    # the child keeps the pipes open, so that only the exit itself can end the wait
    done = run(["/bin/sh", "-c", "sleep 30 & echo out"], seconds=60)
    assert done.stdout == b"out\n"
    assert time.monotonic() - began < 30


def test_a_command_is_fed_by_a_thread_and_read_meanwhile() -> None:
    def feed(descriptor: int, wrote: Callable[[int], None]) -> None:
        for _ in range(300):
            wrote(os.write(descriptor, b"x" * 10_000))

    assert run_fed(["/bin/cat"], feed, standstill=10).stdout == b"x" * 3_000_000


def test_what_a_feed_raises_ends_the_command_before_its_input_ends(tmp_path: Path) -> None:
    """A packer must not take an early end of its input for the end of the image."""
    mark = tmp_path / "complete"

    def feed(descriptor: int, wrote: Callable[[int], None]) -> None:
        wrote(os.write(descriptor, b"half"))
        raise ImageInvalid("layer 1 is wrong")

    with pytest.raises(ImageInvalid, match="layer 1"):
        run_fed(["/bin/sh", "-c", f"cat >/dev/null; touch {mark}"], feed, standstill=10)
    time.sleep(0.3)
    assert not mark.exists()


def endless(descriptor: int, wrote: Callable[[int], None]) -> None:
    while True:
        wrote(os.write(descriptor, bytes(1 << 16)))


def nothing(descriptor: int, wrote: Callable[[int], None]) -> None:
    """No input at all."""


def test_a_standstill_is_not_a_deadline() -> None:
    def slowly(descriptor: int, wrote: Callable[[int], None]) -> None:
        for _ in range(6):
            time.sleep(0.4)
            wrote(os.write(descriptor, b"x"))

    assert run_fed(["/bin/cat"], slowly, standstill=2).stdout == b"x" * 6
    with pytest.raises(Late, match="took no input for 0 s"):
        run_fed(["/bin/sleep", "60"], endless, standstill=0.3)
    with pytest.raises(Late, match="did not finish after its last input"):
        run_fed(["/bin/sleep", "60"], nothing, standstill=0.3)


def test_a_fed_command_that_exits_early() -> None:
    with pytest.raises(UpstreamFailed, match="exited with 3: broken"):
        run_fed(["/bin/sh", "-c", "echo broken; exit 3"], endless, standstill=10).require_success()
    with pytest.raises(UpstreamFailed, match="stopped reading before the end of its input"):
        run_fed(["/usr/bin/head", "-c", "10"], endless, standstill=10)
    with pytest.raises(UpstreamFailed, match="cannot run /no/such/program"):
        run_fed(["/no/such/program"], endless, standstill=10)


def test_files_of_a_fed_command_are_private(tmp_path: Path) -> None:
    run_fed(["/bin/sh", "-c", f"cat > {tmp_path}/out"], nothing, standstill=10)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o600
