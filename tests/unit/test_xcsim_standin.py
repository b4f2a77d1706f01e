"""A stand-in whose machine ends, or answers while a signal comes, says so in one line and never with a traceback."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xcsim.processes import wait_until

_CALL = "import sys; from xcsim import standin; standin.SOCKET = sys.argv[1]; sys.exit(standin.call('aprun', [], []))"


@contextmanager
def _called(directory: Path) -> Iterator[tuple[subprocess.Popen[str], socket.socket]]:
    """aprun, and its connection to the machine, which has read nothing yet."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(directory / "machine"))
        server.listen()
        words = [sys.executable, "-c", _CALL, str(directory / "machine")]
        with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
            yield process, server.accept()[0]


def _catches(pid: int, number: int) -> bool:
    caught = re.search(r"^SigCgt:\s*([0-9a-f]+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return bool(caught and int(caught[1], 16) >> (number - 1) & 1)


def test_the_machine_ends_before_it_has_read_all(tmp_path: Path) -> None:
    with _called(tmp_path) as (process, connection):
        connection.close()
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (1, "aprun: the machine closed the connection\n")


def test_a_signal_comes_when_the_application_has_ended(tmp_path: Path) -> None:
    with _called(tmp_path) as (process, connection):
        assert wait_until(lambda: _catches(process.pid, signal.SIGUSR1), 30, 0.01)
        connection.shutdown(socket.SHUT_RD)  # so that nothing more can be sent to it
        process.send_signal(signal.SIGUSR1)
        connection.sendall(b"7\n")
        connection.close()  # and with it the error stream of aprun, which was sent along
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (7, "")
