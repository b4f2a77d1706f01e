"""A munged of the tests' own: its own key and socket, and nothing of the machine's."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path


class Munged:
    """Runs in `directory`, which others may enter, until `stop`."""

    def __init__(self, directory: Path, key: bytes = b"") -> None:
        directory.mkdir()
        directory.chmod(0o755)
        self.socket = str(directory / "socket")
        self._key = directory / "key"
        self._key.write_bytes(key or os.urandom(128))
        self._key.chmod(0o600)
        places = {"key-file": self._key, "socket": self.socket}
        places |= {f"{name}-file": directory / name for name in ("pid", "seed", "log")}
        self._words = [f"--{name}={path}" for name, path in places.items()]
        self._start()

    def change_key(self, key: bytes) -> None:
        """As an operator does: the file, then the daemon anew."""
        self.stop()
        self._key.write_bytes(key)
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            ["/usr/sbin/munged", "--force", "--foreground", *self._words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 30
        while not _answers(self.socket):
            assert time.monotonic() < deadline
            assert self._process.poll() is None
            time.sleep(0.02)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
        return True
