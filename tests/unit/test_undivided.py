"""No signal comes between the start of a process and what must be known about it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from udi.undivided import is_postponed, undivided

_ROOT = Path(__file__).parents[2]
_LEFT = """
import os, signal, sys, time
from jobs import process
from udi.command import run

def left():
    for number in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{number}/cmdline", "rb") as words:
                if sys.argv[1].encode() in words.read().split(b"\\0") and int(number) != os.getpid():
                    yield number
        except (FileNotFoundError, ProcessLookupError):
            pass

def left_in_the_end():
    deadline = time.monotonic() + 30
    while any(left()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left()

interrupted = 0
"""
_BY_HOOK = """
for moment in range(200):
    signal.pthread_sigmask(signal.SIG_UNBLOCK, process._REQUESTS)
    process.catch_signals()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0001 + moment * 0.00003)
        run(["/bin/sleep", sys.argv[1]], seconds=10)  # poll(2) may begin just after a signal
    except process.Interrupted:
        interrupted += 1
    signal.alarm(0)
print(interrupted, *left_in_the_end())
"""
_BY_KEYBOARD = """
signal.signal(signal.SIGALRM, lambda number, frame: signal.raise_signal(signal.SIGINT))
for moment in range(100):
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0001 + moment * 0.00005)
        run(["/bin/sleep", sys.argv[1]], seconds=10)
    except KeyboardInterrupt:
        interrupted += 1
run(["/bin/true"], seconds=10)
print(interrupted, signal.getsignal(signal.SIGINT) is signal.default_int_handler, *left_in_the_end())
"""


class Told(Exception):
    """What the handler raises."""


def raising(number: int, frame: types.FrameType | None) -> None:
    if not is_postponed(number):
        raise Told(signal.Signals(number).name)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)}
    signal.signal(signal.SIGUSR1, raising)
    signal.signal(signal.SIGUSR2, raising)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_no_command_is_lost_whenever_its_hook_is_interrupted() -> None:
    """While the hook undoes its work, the command that was being started would go on with it."""
    argv = [sys.executable, "-c", _LEFT + _BY_HOOK, f"600.{os.getpid()}"]
    done = subprocess.run(argv, cwd=_ROOT, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "200\n"


def test_a_signal_within_is_handled_at_the_end() -> None:
    steps = []
    with pytest.raises(Told, match="SIGUSR1"), undivided():
        signal.raise_signal(signal.SIGUSR1)
        steps.append("went on")
    assert steps == ["went on"]
    with pytest.raises(Told, match="SIGUSR2"):
        signal.raise_signal(signal.SIGUSR2)


def test_of_several_the_first_that_raises_counts() -> None:
    with pytest.raises(Told), undivided():
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR2)
    with undivided():
        pass


def test_it_takes_the_place_of_an_error() -> None:
    with pytest.raises(Told) as caught, undivided():
        signal.raise_signal(signal.SIGUSR1)
        raise FileNotFoundError
    assert isinstance(caught.value.__context__, FileNotFoundError)


def test_another_thread_holds_nothing_up() -> None:
    entered, leave = threading.Event(), threading.Event()

    def within() -> None:
        with undivided():
            entered.set()
            leave.wait(30)

    thread = threading.Thread(target=within)
    thread.start()
    entered.wait(30)
    with pytest.raises(Told):
        signal.raise_signal(signal.SIGUSR1)
    leave.set()
    thread.join()


def test_the_keyboard_waits_as_well() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    steps = []
    with pytest.raises(KeyboardInterrupt), undivided():
        signal.raise_signal(signal.SIGINT)
        steps.append("went on")
    assert steps == ["went on"]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("interrupted", [False, True])
def test_python_s_own_handler_of_the_keyboard_is_back_afterwards(interrupted: bool) -> None:
    """asyncio, for one, handles ^C only where it finds that one."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), undivided():
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        if interrupted:
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_program_s_own_handler_stays() -> None:
    signal.signal(signal.SIGINT, raising)
    with pytest.raises(Told, match="SIGINT"), undivided():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is raising


def test_no_command_is_lost_whenever_the_keyboard_interrupts() -> None:
    argv = [sys.executable, "-c", _LEFT + _BY_KEYBOARD, f"601.{os.getpid()}"]
    done = subprocess.run(argv, cwd=_ROOT, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "100 True\n"


def test_a_signal_that_is_ignored_stays_so() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with undivided():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
