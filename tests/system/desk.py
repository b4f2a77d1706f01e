"""The login node as a workstation: a Docker daemon on it that everybody may use, with its data below /tmp."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.system.cray import Cray
from xcsim.processes import wait_until

_SOCKET = "/tmp/dockerd/docker.sock"
HOST = {"DOCKER_HOST": f"unix://{_SOCKET}"}
"""What tells Docker's client of it."""
_DOCKERD = f"""
mount -t tmpfs none /sys/fs/cgroup && for each in $(awk 'NR > 1 && $4 {{print $1}}' /proc/cgroups); do
    mkdir /sys/fs/cgroup/$each && mount -t cgroup -o $each none /sys/fs/cgroup/$each || rmdir /sys/fs/cgroup/$each
done 2>/dev/null
mkdir -p /tmp/dockerd
exec dockerd --iptables=false --ip6tables=false --ip-forward=false --bridge=none --storage-driver=vfs \
    --data-root=/tmp/dockerd/data --exec-root=/tmp/dockerd/exec --pidfile=/tmp/dockerd/pid -H unix://{_SOCKET}
"""


@contextmanager
def dockerd(cray: Cray) -> Iterator[None]:
    """The daemon, for a while."""
    with open(cray.machine.state / "log/dockerd.log", "ab") as log:
        daemon = cray.machine.popen_as("root", ["/bin/sh", "-c", _DOCKERD], stdout=log.fileno(), stderr=log.fileno())
    try:
        assert wait_until(cray.machine.path(_SOCKET).exists, 30, 0.05)
        cray.machine.run_as("root", ["chmod", "666", _SOCKET], check=True)
        yield
    finally:
        daemon.terminate()
        daemon.wait(30)


def load(cray: Cray, archive: Path) -> None:
    """Give the daemon the images of an archive."""
    path = "/tmp/desk.tar"
    cray.machine.path(path).write_bytes(archive.read_bytes())
    cray.machine.run_as("root", ["docker", "load", "-i", path], env=HOST, check=True)
