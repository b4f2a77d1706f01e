"""Conversions on the nodes of a real Slurm by the gateway's own writer, whose companions are at work there when a part
of it is killed, or when the host falls silent."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator

import pytest

from slurmsim.cluster import LOGIN
from tests.conversions import PACKING, WORKER, send
from tests.slurm.cluster import LOOK, Slurm
from tests.slurm.elsewhere import (
    SECONDS,
    all_is_gone,
    default_tables,
    go_on,
    packing,
    processes,
    restart,
    started_again,
)
from xcsim.processes import members, namespace_of, wait_until

_TABLES = default_tables("/usr/bin/srun", "--quiet", "-N1", "-n1", "-wn2")
_KILLED = "the conversion terminated unexpectedly"
_SILENT = (
    r"the host of the conversion, n2\S*, has fallen silent: nothing came for \d+ s, then /usr/bin/srun ended with exit"
)


@pytest.fixture(scope="module")
def elsewhere(standing: Slurm) -> Iterator[Slurm]:
    """The gateway with workers on a node."""
    with started_again(standing, _TABLES) as slurm:
        yield slurm


@pytest.fixture
def converting(elsewhere: Slurm, slurm: Slurm) -> Slurm:
    """The cluster for one test."""
    return slurm


@pytest.mark.parametrize("victim", ["worker", "companion", "srun", "job"])
def test_a_part_is_killed(converting: Slurm, victim: str) -> None:
    """The user reads what ended; no process and no file is left, and another try succeeds."""
    cluster, name = converting.cluster, f"large-{victim}:1"
    with packing(converting, name) as pull:
        found = processes(converting, "n2")
        if victim == "worker":
            send(found, WORKER, signal.SIGKILL)
        elif victim == "companion":
            send(found, PACKING, signal.SIGKILL)
        elif victim == "srun":
            cluster.root(LOGIN, "pkill", "-KILL", "-u", "udi", "srun")
        else:
            cluster.root(LOGIN, "scancel", "--user=udi")
        go_on(converting)
        _, said = pull.communicate(timeout=SECONDS)
    assert pull.returncode == 6, said
    told = f"a process of the conversion ({PACKING}) was terminated by signal 9" if victim == "companion" else _KILLED
    assert told in said
    if victim == "srun":  # Slurm keeps the allocation of an srun that is killed
        assert wait_until(lambda: not processes(converting, "n2"), SECONDS, 0.1)
        cluster.root(LOGIN, "scancel", "--user=udi")
    all_is_gone(converting)
    again = converting.run("alice", "udi", "pull", "docker-archive:/scratch/packing.tar")
    assert again.returncode == 0, again.stderr
    assert converting.batch("alice", LOOK, f"--image={name}")[1].split()[1] == converting.marker(name)


def test_the_gateway_is_killed(converting: Slurm) -> None:
    """All processes on the node end with it. What it left goes with its next start."""
    cluster = converting.cluster
    with packing(converting, "large-killed:1"):
        cluster.root(LOGIN, "pkill", "-KILL", "-u", "udi", "-f", "udi-gateway")
        go_on(converting)
        assert wait_until(lambda: not processes(converting, "n2"), SECONDS, 0.1), processes(converting, "n2")
    assert wait_until(lambda: not cluster.root(LOGIN, "squeue", "--noheader", "--user=udi").stdout, SECONDS, 0.1)
    restart(converting, _TABLES)
    again = converting.run("alice", "udi", "pull", "docker-archive:/scratch/packing.tar")
    assert again.returncode == 0, again.stderr
    cluster.root(
        LOGIN, "sh", "-c", "rm -rf /scratch/spool/given.*"
    )  # it stays there for hours, and is not of later tests
    images = cluster.directory / "scratch/udi/images"
    assert not [path for path in images.iterdir() if path.name.startswith(".new-")]


def test_the_host_falls_silent(converting: Slurm) -> None:
    """Nothing on the node runs any more, and no connection is closed. The pull fails when Slurm gives it up, which is
    sooner than the gateway would. When the host is back, what it has of the conversion ends."""
    with packing(converting, "large-silent:1") as pull:
        for pid in members("pid", namespace_of(converting.cluster.host("n2").pid, "pid")):
            os.kill(pid, signal.SIGSTOP)
        _, said = pull.communicate(timeout=3 * SECONDS)
        assert pull.returncode == 6 and re.search(_SILENT, said), said
        assert "hint: that is the site's fault, and not the image's" in said
        assert PACKING in processes(converting, "n2").values()
        go_on(converting)
    assert wait_until(lambda: not processes(converting, "n2"), 2 * SECONDS, 0.1), processes(converting, "n2")
    converting.reset()
    converting.cluster.root(LOGIN, "scancel", "--user=udi", check=False)
    all_is_gone(converting)
    converting.await_clean()
    again = converting.run("alice", "udi", "pull", "docker-archive:/scratch/packing.tar")
    assert again.returncode == 0, again.stderr
