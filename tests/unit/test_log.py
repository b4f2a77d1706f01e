"""The hooks' log must never stop a hook, nor write into a user's error file more than once: whatever the log is."""

from __future__ import annotations

import dataclasses
import logging
import os
import pty
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.process import Interrupted
from udi import log
from udi.config import JobsConfig, SiteConfig, StoreConfig


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """The root logger as it was, after each test."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    for handler in list(root.handlers):
        root.removeHandler(handler)
    for handler in before:
        root.addHandler(handler)
    root.setLevel(level)


def site(path: str, *, syslog: bool = False) -> SiteConfig:
    return SiteConfig(store=StoreConfig(path="/"), jobs=JobsConfig(log=path, syslog=syslog))


def say(count: int = 8) -> None:
    for number in range(count):
        logging.getLogger("udi").error("message %d", number)


class Receiver:
    """A syslog."""

    def __init__(self, path: Path, kind: socket.SocketKind = socket.SOCK_DGRAM) -> None:
        self.socket = socket.socket(socket.AF_UNIX, kind)
        self.socket.bind(str(path))
        if kind == socket.SOCK_STREAM:
            self.socket.listen(1)

    def texts(self) -> list[str]:
        self.socket.setblocking(False)
        found = []
        while True:
            try:
                found.append(self.socket.recv(65536).decode())
            except BlockingIOError:
                return found


@pytest.fixture
def syslog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "syslog"
    monkeypatch.setattr(log, "_SYSLOG", str(path))
    monkeypatch.setattr(log._Syslog, "place", str(path))
    return path


def test_both_logs_get_a_line(tmp_path: Path, syslog: Path) -> None:
    receiver = Receiver(syslog)
    log.start_log(site(f"{tmp_path}/log/hooks.log", syslog=True), "hook", "12.sdb")
    logging.getLogger("udi").error("a\nb %s", "c")
    logging.getLogger("udi").debug("details")
    assert receiver.texts() == [f"<27>hook[{os.getpid()}]: job=12.sdb a\\nb c\0"]
    lines = (tmp_path / "log/hooks.log").read_text().splitlines()
    assert [line.split("] ", 1)[1] for line in lines] == ["job 12.sdb ERROR a\\nb c", "job 12.sdb DEBUG details"]
    assert (tmp_path / "log/hooks.log").stat().st_mode & 0o777 == 0o600


def test_a_stream_is_understood_and_a_restart_survived(tmp_path: Path, syslog: Path) -> None:
    receiver = Receiver(syslog, socket.SOCK_STREAM)
    log.start_log(site("", syslog=True), "hook")
    say(1)
    connection, _ = receiver.socket.accept()
    assert connection.recv(100).endswith(b"message 0\0")
    connection.close()
    receiver.socket.close()
    syslog.unlink()
    again = Receiver(syslog)
    say(1)
    assert len(again.texts()) == 1


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_a_syslog_that_is_stalled_costs_a_second(
    tmp_path: Path, syslog: Path, kind: socket.SocketKind, capfd: pytest.CaptureFixture[str]
) -> None:
    receiver = Receiver(syslog, kind)
    log.start_log(site(f"{tmp_path}/hooks.log", syslog=True), "hook")
    began = time.monotonic()
    say(20000)
    assert time.monotonic() - began < 30
    text = (tmp_path / "hooks.log").read_text()
    assert text.count("message ") == 20000
    assert text.count(f"nothing more is logged in {syslog}: ") == 1
    assert capfd.readouterr().err == ""
    receiver.socket.close()


def test_a_syslog_that_is_started_again_when_its_time_is_over(
    tmp_path: Path, syslog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a send that fails late has taken can be more than there was."""
    receiver = Receiver(syslog)
    monkeypatch.setattr(log, "_SYSLOG_SECONDS", -0.001)
    log.start_log(site(f"{tmp_path}/hooks.log", syslog=True), "hook")
    say(1)
    assert "message 0" in (tmp_path / "hooks.log").read_text() and receiver.texts() == []


def _damaged(tmp_path: Path, fault: str) -> str:
    path = tmp_path / "hooks.log"
    match fault:
        case "a pipe":
            os.mkfifo(path)
        case "a directory":
            path.mkdir()
        case "a device":
            path.symlink_to("/dev/full")
        case "below a file":
            path.write_text("")
            return f"{path}/hooks.log"
        case "a circle":
            path.symlink_to(path)
    return str(path)


@pytest.mark.parametrize("with_syslog", [False, True])
@pytest.mark.parametrize("fault", ["a pipe", "a directory", "a device", "below a file", "a circle"])
def test_a_log_that_cannot_be_one(
    tmp_path: Path, syslog: Path, fault: str, with_syslog: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    """One line says so: in syslog, or on stderr where there is none."""
    receiver = Receiver(syslog)
    log.start_log(site(_damaged(tmp_path, fault), syslog=with_syslog), "hook")
    say()
    err, texts = capfd.readouterr().err, receiver.texts()
    if with_syslog:
        assert err == "" and len(texts) == 9 and "nothing more is logged in" in texts[0]
    else:
        assert err.count("\n") == 1 and err.startswith("hook: nothing more is logged in ") and texts == []


def test_a_disk_that_is_full_is_reported_once(tmp_path: Path) -> None:
    """The limit on a file's size stands for it: write(2) fails after some lines."""
    code = (
        "import logging; from udi import log; from udi.config import *;"
        f"jobs = JobsConfig(log='{tmp_path}/log', syslog=False);"
        "log.start_log(SiteConfig(store=StoreConfig(path='/'), jobs=jobs), 'hook');"
        "[logging.getLogger('udi').error('message %d', n) for n in range(40)]"
    )

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, preexec_fn=limited)
    assert done.stderr == f"hook: nothing more is logged in {tmp_path}/log: file too large\n"
    assert (tmp_path / "log").stat().st_size == 1000


def test_a_message_that_cannot_be_formatted_is_no_traceback(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log.start_log(site(f"{tmp_path}/log"), "hook")
    logging.getLogger("udi").error("%d", "x")
    say(1)
    assert capfd.readouterr().err == ""
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 2 and lines[0].startswith("udi: message that cannot be formatted: %d: ")


def test_an_interruption_passes_through_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise Interrupted("interrupted by SIGTERM before it finished")

    log.start_log(site(f"{tmp_path}/log"), "hook")
    monkeypatch.setattr(log._File, "take", interrupted)
    with pytest.raises(Interrupted):
        say(1)


def test_a_terminal_that_is_stopped_is_not_waited_for() -> None:
    """As after control-S: what is written is not taken, and a write(2) would wait for ever."""
    main, other = pty.openpty()
    os.set_blocking(other, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(other, b"x" * 4096)
    os.set_blocking(other, True)
    code = "from udi.log import write_line; write_line('hello', 0.2)"
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", code], stderr=other, check=True, timeout=60)
    assert time.monotonic() - began < 30
    os.close(main)
    os.close(other)


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "2>&- 1>&- 0<&-"])
def test_stderr_that_takes_nothing_is_no_error(redirection: str) -> None:
    code = "from udi.log import write_line; write_line('hello')"
    done = subprocess.run(["/bin/sh", "-c", f'"$0" -c "$1" {redirection}', sys.executable, code], check=False)
    assert done.returncode == 0


_SWALLOWING = """
import time
from jobs import process
process._AGAIN_SECONDS = 1
process.catch_signals(1)
count = 0
while count < 3:
    try:
        time.sleep(30)
    except process.Interrupted as error:
        count += 1
        print(error, flush=True)
process.ignore_signals()
time.sleep(1.2)
print("end")
"""


def test_an_alarm_that_was_swallowed_rings_again() -> None:
    done = subprocess.run([sys.executable, "-c", _SWALLOWING], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == 3 * "interrupted by SIGALRM before it finished\n" + "end\n"


def test_after_one_signal_only_the_alarm_interrupts() -> None:
    code = _SWALLOWING.replace("catch_signals(1)", "catch_signals(0)").replace("time.sleep(30)", "signals()")
    code = code.replace("import time\n", "import os, signal, time\n") + ""
    code = code.replace(
        "count = 0", "def signals():\n    os.kill(os.getpid(), signal.SIGTERM)\n    time.sleep(30)\ncount = 0"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    first, *others = done.stdout.splitlines()
    assert first == f"interrupted by {signal.SIGTERM.name} before it finished"
    assert others == [*2 * ["interrupted by SIGALRM before it finished"], "end"]


def test_the_site_may_want_no_log_at_all(capfd: pytest.CaptureFixture[str]) -> None:
    quiet = site("")
    log.start_log(dataclasses.replace(quiet), "hook")
    say()
    assert capfd.readouterr().err == ""
