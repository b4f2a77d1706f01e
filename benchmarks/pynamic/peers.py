"""What a user would take instead, as Debian has it: `docker run`, and Charliecloud's `ch-run` on a directory and a
squashfs.

They run on this machine itself, not on a node. A peer that is not installed, or does not work here, is left out with
one line that says so. Their start includes that of the container.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.pynamic.image import ARGV, Packing
from benchmarks.pynamic.nodes import Timing, timing
from benchmarks.pynamic.rounds import Sample, Way, between, working
from benchmarks.pynamic.stores import Store, drop_caches
from udiroot.errors import SetupFailed, UdiError
from xcsim import tools

_IMAGE = "pynamic:1"
_SECONDS = 3600.0
_START_SECONDS = 60.0


@dataclass(frozen=True)
class Docker:
    """`docker run` of an image that this machine's daemon has on its local disk, each time in a new container."""

    socket: str
    name: str = "local disk, docker run"

    def sample(self) -> Sample:
        drop_caches()
        first, cached = (self._run() for _ in range(2))
        return Sample(0.0, first, cached, None, None)

    def _run(self) -> Timing:
        return _timed(["docker", "-H", self.socket, "run", "--rm", "--network=none", _IMAGE, *ARGV])


@dataclass(frozen=True)
class ChRun:
    """`ch-run` on an image of a store. It mounts a squashfs by FUSE itself, each time anew.

    As root: a user may open /dev/fuse on some machines only.
    """

    store: Store
    packing: Packing
    image: str
    mount: Path

    @property
    def name(self) -> str:
        return f"{self.store.name}, ch-run on {self.packing.name}"

    def sample(self) -> Sample:
        with self.store.opened(1) as opened:
            argv = ["ch-run", "--mount", str(self.mount), str(opened.directories[0] / self.image), "--", *ARGV]
            begun = opened.counts()
            first = _timed(argv)
            middle = opened.counts()
            cached = _timed(argv)
            ended = opened.counts()
        return Sample(0.0, first, cached, between(begun, middle), between(middle, ended))


@contextlib.contextmanager
def docker(tree: Path, directory: Path, told: Callable[[str], None]) -> Iterator[list[Way]]:
    """A Docker daemon of the benchmark's own with the tree as its image; nothing, where that does not work."""
    if not Path("/usr/sbin/dockerd").exists() or not shutil.which("docker"):
        told("left out: docker is not installed (Debian's docker.io)")
        yield []
        return
    with contextlib.ExitStack() as opened:
        try:
            way = opened.enter_context(_daemon(tree, directory))
        except UdiError as error:
            told(f"left out: docker: {error}")
            yield []
            return
        yield [way]


@contextlib.contextmanager
def _daemon(tree: Path, directory: Path) -> Iterator[Docker]:
    directory.mkdir()
    socket = f"unix://{directory}/docker.sock"
    options = ["--iptables=false", "--ip6tables=false", "--ip-forward=false", "--bridge=none", "-H", socket]
    options += [f"--data-root={directory}/data", f"--exec-root={directory}/exec", f"--pidfile={directory}/pid"]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(["/usr/sbin/dockerd", *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not (directory / "docker.sock").exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SetupFailed(f"dockerd does not start: {_last_line(directory / 'log')}")
            time.sleep(0.05)
        archive = directory / "tree.tar"
        tools.run("tar", "-C", tree, "-cf", archive, ".", failure="tar failed", seconds=_SECONDS)
        tools.run("docker", "-H", socket, "import", archive, _IMAGE, failure="docker import failed", seconds=_SECONDS)
        archive.unlink()
        way = Docker(socket)
        way.sample()
        yield way
    finally:
        process.terminate()
        process.wait(_START_SECONDS)


def charliecloud(images: Sequence[tuple[Store, Packing, str]], mount: Path, told: Callable[[str], None]) -> list[Way]:
    """`ch-run` on these, with a new directory to mount on; nothing, where it does not work."""
    if not shutil.which("ch-run"):
        told("left out: ch-run is not installed (Debian's charliecloud-runtime)")
        return []
    mount.mkdir()
    return working((ChRun(store, packing, image, mount) for store, packing, image in images), told)


def _timed(argv: Sequence[str]) -> Timing:
    """Run the program in a container, from the start of the command on. Raises SetupFailed."""
    environment = {"PATH": os.environ["PATH"], "HOME": "/tmp", "USER": "root"}
    begun = time.monotonic()
    done = subprocess.run(argv, env=environment, cwd="/", capture_output=True, text=True, timeout=_SECONDS)
    if done.returncode:
        raise SetupFailed(f"{argv[0]} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return timing(begun, done.stdout)


def _last_line(path: Path) -> str:
    return (path.read_text(errors="replace").strip().splitlines() or ["no message"])[-1]
