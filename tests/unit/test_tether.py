"""Commands end with their caller, whatever they do, and no earlier."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.gateway.service import directory_for_all
from tests.gone import nothing_left, require_gone
from udi.command import run
from udi.tether import Tether

_ROOT = Path(__file__).parents[2]
_NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")


_CALLER = """
import sys, threading
from udi.command import run

def told(chunk):
    with open(sys.argv[2], "ab") as pids:
        pids.write(chunk)

for _ in range(int(sys.argv[1])):
    threading.Thread(target=run, args=(sys.argv[3:],), kwargs={"seconds": 60, "on_stdout": told}).start()
"""


def kill_caller(argv: list[str], pids: Path, count: int, threads: int = 1) -> None:
    """A process that runs the command in so many threads at once is killed when it has been told so many pids."""
    caller = subprocess.Popen([sys.executable, "-c", _CALLER, str(threads), str(pids), *argv], cwd=_ROOT)
    wait_for(lambda: pids.exists() and len(pids.read_text().splitlines()) == count)
    caller.kill()
    caller.wait()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def sleeps(pid: int) -> bool:
    """Whether it is alive, and has begun to sleep."""
    return Path(f"/proc/{pid}/stat").read_text().split()[2] == "S"


def script(*lines: str) -> list[str]:
    """A shell that tells its own pid, runs the lines, and becomes a sleep."""
    return ["/bin/sh", "-c", "; ".join(("echo $$", *lines, "exec sleep 60"))]


@pytest.fixture
def group() -> Iterator[subprocess.Popen[bytes]]:
    """A process that leads a group."""
    process = subprocess.Popen(["/bin/sleep", "60"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def test_a_killed_caller_takes_its_command_and_the_command_s_children_along(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    kill_caller(script("sleep 60 & echo $!"), pids, count=2)
    require_gone(pids)


def test_a_command_cannot_close_what_it_depends_on(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    code = (
        "import os; print(os.getpid(), flush=True); os.closerange(0, 1 << 16); os.execv('/bin/sleep', ['sleep', '60'])"
    )
    kill_caller([sys.executable, "-c", code], pids, count=1)
    require_gone(pids)


def test_many_at_once(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    kill_caller(script(), pids, count=20, threads=20)
    require_gone(pids)


@needs_root
def test_a_command_that_becomes_another_user(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    code = f"import os; os.setresuid(*3 * ({_NOBODY},)); os.execv('/bin/sh', {script()!r})"
    kill_caller([sys.executable, "-c", code], pids, count=1)
    require_gone(pids)


@needs_root
def test_a_user_s_command_that_gets_root_s_rights() -> None:
    """The kernel forgets PR_SET_PDEATHSIG when a program with the set-user-id bit is executed."""
    with directory_for_all("udi-tether-") as directory:
        sleep, pids = directory / "sleep", directory / "pids"
        shutil.copy("/bin/sleep", sleep)
        sleep.chmod(0o4755)
        pids.touch(0o666)
        pids.chmod(0o666)

        def told(chunk: bytes) -> None:
            pids.write_bytes(chunk)

        caller = os.fork()
        if not caller:
            try:
                os.setresuid(_NOBODY, _NOBODY, _NOBODY)
                argv = ["/bin/sh", "-c", f"echo $$; exec {sleep} 60"]
                run(argv, seconds=60, on_stdout=told)
            finally:
                os._exit(1)
        wait_for(lambda: pids.read_text().endswith("\n"))
        pid = int(pids.read_text())
        wait_for(lambda: Path(f"/proc/{pid}/cmdline").read_bytes().startswith(bytes(sleep)))
        assert f"Uid:\t{_NOBODY}\t0\t0" in Path(f"/proc/{pid}/status").read_text()
        os.kill(caller, signal.SIGKILL)
        os.waitpid(caller, 0)
        require_gone(pids)


def test_what_leaves_the_group_lives_on(tmp_path: Path) -> None:
    """Whether the command ends by itself or with its caller: a daemon that it has started is the site's affair."""
    first, second, pids = tmp_path / "first", tmp_path / "second", tmp_path / "pids"
    assert run(["/bin/sh", "-c", _daemon(first)], seconds=30).exit_code == 0
    kill_caller(["/bin/sh", "-c", f"{_daemon(second)}; echo $$; exec sleep 60"], pids, count=1)
    require_gone(pids)
    for pid in (int(first.read_text()), int(second.read_text())):
        wait_for(partial(sleeps, pid))
        os.kill(pid, signal.SIGKILL)


def _daemon(pid: Path) -> str:
    """Lines that start one, and wait until it has a session of its own."""
    return f"setsid sh -c 'echo $$ > {pid}; exec sleep 60' & while ! [ -s {pid} ]; do sleep 0.05; done"


def test_what_stays_in_the_group_ends_with_the_command(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    assert run(["/bin/sh", "-c", f"sleep 60 & echo $! > {pids}"], seconds=30).exit_code == 0
    require_gone(pids)


def test_a_command_inherits_nothing_of_it_and_nothing_stays_open() -> None:
    run(["/bin/true"], seconds=30)
    with nothing_left():
        threads = [threading.Thread(target=run, args=(["/bin/true"],), kwargs={"seconds": 30}) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        shown = run(["/bin/ls", "/proc/self/fd"], seconds=30).stdout.split()
    assert shown == [b"0", b"1", b"2", b"3"]  # the last is the directory


@pytest.mark.parametrize("first", [0, 1])
def test_either_end_may_be_closed_first(group: subprocess.Popen[bytes], first: int) -> None:
    """Kernels differ in it when a process ends."""
    tether = Tether()
    tether.tie(group.pid)
    tether._ends[first].close()
    assert group.wait(30) == -signal.SIGKILL
    tether.close()


def test_closing_and_losing_it_kill(group: subprocess.Popen[bytes]) -> None:
    tether = Tether()
    tether.close()
    tether = Tether()
    tether.tie(group.pid)
    assert group.poll() is None
    del tether
    assert group.wait(30) == -signal.SIGKILL


@needs_root
def test_another_group_with_the_same_number_is_safe(group: subprocess.Popen[bytes]) -> None:
    tether = Tether()
    tether.tie(group.pid)
    group.kill()
    group.wait()
    for _ in range(1000):  # another process of this machine may have been faster
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(group.pid - 1))
        other = subprocess.Popen(["/bin/sleep", "60"], start_new_session=True)
        if other.pid == group.pid:
            break
        other.kill()
        other.wait()
    assert os.getpgid(group.pid) == group.pid
    tether.close()
    with pytest.raises(subprocess.TimeoutExpired):
        other.wait(0.3)
    other.kill()
    other.wait()
