"""A real HTTP proxy of a test's own, on loopback, as a centre has one between its service nodes and the world."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path
from typing import Self

from xcsim.ports import free_port


class Tinyproxy:
    """A running tinyproxy, its log in `directory`. It makes tunnels to `tunnels` alone, where that is set."""

    def __init__(self, directory: Path, tunnels: int | None = None) -> None:
        self._folder = directory
        self._tunnels = tunnels
        self._port = free_port()
        self.address = f"localhost:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._folder.mkdir()
        self._log = self._folder / "log"
        lines = [f"Port {self._port}", "Listen 127.0.0.1", "Timeout 60", "LogLevel Info", f'LogFile "{self._log}"']
        lines += [f"ConnectPort {self._tunnels}"] if self._tunnels else []
        configuration = self._folder / "tinyproxy.conf"
        configuration.write_text("\n".join([*lines, ""]))
        self._process = subprocess.Popen(["/usr/bin/tinyproxy", "-d", "-c", configuration], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), 1).close()
                return self
            except OSError:
                assert time.monotonic() < deadline, self.log()
                time.sleep(0.02)

    def __exit__(self, *_: object) -> None:
        assert self._process
        self._process.terminate()
        self._process.wait(30)

    def log(self) -> str:
        """What it was asked so far."""
        return self._log.read_text()
