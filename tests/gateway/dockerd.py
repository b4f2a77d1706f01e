"""A Docker daemon of a test's own: no network of its own, data below the test's directory."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Self

import docker


class Dockerd:
    """A running dockerd on a UNIX socket that all may use. A context manager.

    Its storage driver `vfs` works everywhere, and copies the whole tree for each layer; `overlay2` is what people have.
    """

    def __init__(self, directory: Path, storage: str = "vfs") -> None:
        self.directory = directory
        self._storage = storage
        self.socket = f"unix://{directory}/docker.sock"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        at = self.directory
        at.mkdir()
        self.log = at / "log"
        options = ["--iptables=false", "--ip6tables=false", "--ip-forward=false", "--bridge=none"]
        options += [
            f"--storage-driver={self._storage}",
            f"--data-root={at}/data",
            f"--exec-root={at}/exec",
            f"--pidfile={at}/pid",
        ]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(["/usr/sbin/dockerd", *options, "-H", self.socket], stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while True:
            try:
                self.client = docker.APIClient(self.socket, version="auto", timeout=30)
                break
            except docker.errors.DockerException:
                assert time.monotonic() < deadline, self.log.read_text()
                assert self._process.poll() is None, self.log.read_text()
                time.sleep(0.05)
        (at / "docker.sock").chmod(0o666)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        if self._process:
            self._process.terminate()
            self._process.wait(30)

    def load(self, archive: Path) -> None:
        with archive.open("rb") as stream:
            for line in self.client.load_image(stream):
                assert "error" not in line, line

    def names(self) -> set[str]:
        return {tag for image in self.client.images() for tag in image["RepoTags"] or []}
