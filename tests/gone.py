"""What must be gone: processes, and what this process has opened and started."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

_SECONDS = 30


def require_gone(pids: Path) -> None:
    """Every `sleep` whose process number the file holds ends; the kernel may take a moment to remove a process."""
    deadline = time.monotonic() + _SECONDS
    for pid in map(int, pids.read_text().split()):
        while _is_sleep(pid):
            assert time.monotonic() < deadline, f"process {pid} still exists"
            time.sleep(0.01)


def _is_sleep(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return b"sleep" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


@contextlib.contextmanager
def nothing_left() -> Iterator[None]:
    """What is done within leaves no file open, and no thread.

    What there was before may go meanwhile: what other tests have left is closed when the interpreter collects it.
    """
    files, threads = _open_files(), set(threading.enumerate())
    yield
    opened, started = _open_files() - files, set(threading.enumerate()) - threads
    assert not opened and not started, (opened, started)


def _open_files() -> set[tuple[str, str]]:
    """Their numbers, and what they are."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            found.add((number, os.readlink(f"/proc/self/fd/{number}")))
    return found
