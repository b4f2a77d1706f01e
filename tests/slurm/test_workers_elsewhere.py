"""Conversions on the nodes of a real Slurm, by `gateway.worker_prefix`: made there, and lost there without harm."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from slurmsim import site
from slurmsim.cluster import LOGIN
from tests.slurm.cluster import ALICE, LOOK, Slurm
from tests.system import images
from xcsim.processes import wait_until
from xcsim.site import Tables

_TABLES: Tables = {
    "gateway": {
        "worker_prefix": ["/usr/bin/srun", "--quiet", "-N1", "-n1", "-wn2"],
        "spool": "/scratch/spool",
        "compression": "lz4",
        "tar2sqfs": "/scratch/packer",
    }
}
_PACKER = """#!/bin/sh
while [ -e /scratch/wait ]; do sleep 0.05; done
exec /usr/bin/tar2sqfs "$@"
"""
_SECONDS = 60.0


@pytest.fixture(scope="module")
def elsewhere(standing: Slurm) -> Iterator[Slurm]:
    """The gateway, started again with workers on a node; afterwards as it was."""
    cluster = standing.cluster
    cluster.root(LOGIN, "install", "-d", "-o", "udi", "-m", "0700", "/scratch/spool")
    packer = cluster.directory / "scratch/packer"
    packer.write_text(_PACKER)
    packer.chmod(0o755)
    _restart(standing, _TABLES)
    try:
        yield standing
    finally:
        _restart(standing, {})


@pytest.fixture
def converting(elsewhere: Slurm, slurm: Slurm) -> Slurm:
    """The cluster for one test."""
    return slurm


def _restart(slurm: Slurm, tables: Tables) -> None:
    slurm.cluster.root(LOGIN, "pkill", "-u", "udi", "-f", "udi-gateway", check=False)
    slurm.cluster.root(LOGIN, "rm", "-f", "/run/udi-gateway/gateway.sock")  # which a killed one leaves
    site.configure(slurm.cluster, tables)
    site.start_gateway(slurm.cluster)


def _workers(slurm: Slurm, node: str) -> list[int]:
    """Workers of conversions on a node, by their numbers there."""
    done = slurm.cluster.root(node, "pgrep", "-u", "udi", "-f", "gateway.service.worker", check=False)
    return [int(number) for number in done.stdout.split()]


@contextmanager
def _begun(slurm: Slurm, name: str) -> Iterator[subprocess.Popen[str]]:
    """A pull whose worker is in the middle of it on the node, until the end."""
    wait = slurm.cluster.directory / "scratch/wait"
    wait.touch()
    images.save(slurm.cluster.directory / "scratch/begun.tar", images.tiny(slurm.marker(name)), name, (ALICE, ALICE))
    process = slurm.cluster.popen_as(
        "alice", "udi", "pull", "docker-archive:/scratch/begun.tar", stderr=subprocess.PIPE, cwd="/scratch/alice"
    )
    try:
        packing = ("pgrep", "-u", "udi", "-f", "/scratch/packer")
        assert wait_until(lambda: slurm.cluster.root("n2", *packing, check=False).returncode == 0, _SECONDS, 0.05)
        yield process
    finally:
        wait.unlink()
        process.kill()
        process.wait()


def _gone(slurm: Slurm) -> bool:
    """Whether neither a worker nor Slurm's job of one is left, nor what it made."""
    queue = slurm.cluster.root(LOGIN, "squeue", "--noheader", "--user=udi").stdout
    given = [path for path in (slurm.cluster.directory / "scratch/spool").iterdir() if path.name.startswith("given.")]
    store = [path for path in (slurm.cluster.directory / "scratch/udi/images").iterdir() if ".tmp" in path.name]
    return not (_workers(slurm, "n2") or queue or given or store)


def test_an_image_is_made_on_a_node(converting: Slurm) -> None:
    """By a worker that Slurm knows as a job of the gateway's account; a job of its user then runs in it."""
    converting.pull("alice", "there:1")
    jobs = converting.cluster.root(LOGIN, "scontrol", "show", "jobs", "--oneliner").stdout
    assert [line for line in jobs.splitlines() if "UserId=udi(" in line and " NodeList=n2 " in line]
    assert converting.batch("alice", LOOK, "--image=there:1")[1].split()[1] == converting.marker("there:1")
    assert wait_until(lambda: _gone(converting), _SECONDS, 0.1)


@pytest.mark.parametrize("victim", ["worker", "srun", "job"])
def test_a_worker_that_is_lost_there(converting: Slurm, victim: str) -> None:
    """The user reads that the conversion ended; nothing is left of it, and another try succeeds."""
    cluster = converting.cluster
    with _begun(converting, f"lost-{victim}:1") as pull:
        if victim == "worker":
            cluster.root("n2", "pkill", "-KILL", "-u", "udi", "-f", "gateway.service.worker")
        elif victim == "srun":
            cluster.root(LOGIN, "pkill", "-KILL", "-u", "udi", "srun")
        else:
            cluster.root(LOGIN, "scancel", "--user=udi")
        _, said = pull.communicate(timeout=_SECONDS)
    assert pull.returncode == 6 and "the conversion terminated unexpectedly" in said, said
    if victim == "srun":  # Slurm keeps the allocation of an srun that is killed (InactiveLimit), without the worker
        assert wait_until(lambda: not _workers(converting, "n2"), _SECONDS, 0.1)
        cluster.root(LOGIN, "scancel", "--user=udi")
    assert wait_until(lambda: _gone(converting), _SECONDS, 0.1)
    converting.pull("alice", f"lost-{victim}:1")


def test_a_gateway_that_is_killed(converting: Slurm) -> None:
    """Its worker on the node ends with it, and what it left goes with the next start and pulls."""
    cluster = converting.cluster
    with _begun(converting, "killed:1"):
        cluster.root(LOGIN, "pkill", "-KILL", "-u", "udi", "-f", "udi-gateway")
        assert wait_until(lambda: not _workers(converting, "n2"), _SECONDS, 0.1)
    assert wait_until(lambda: not cluster.root(LOGIN, "squeue", "--noheader", "--user=udi").stdout, _SECONDS, 0.1)
    _restart(converting, _TABLES)
    converting.pull("alice", "killed:1")
