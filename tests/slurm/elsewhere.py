"""Conversions whose workers run on a node of a real Slurm (`gateway.worker_prefix`), and what is left of them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from slurmsim import site
from slurmsim.cluster import LOGIN
from tests.slurm.cluster import ALICE, Slurm
from tests.system import images
from xcsim.processes import wait_until
from xcsim.site import Tables

_PACKER = """#!/bin/sh
while [ -e /scratch/wait ]; do sleep 0.05; done
exec /usr/bin/tar2sqfs "$@"
"""
SECONDS = 60.0


def tables(*prefix: str) -> Tables:
    """The configuration of a gateway whose workers this command starts."""
    return {
        "gateway": {
            "worker_prefix": [*prefix],
            "spool": "/scratch/spool",
            "compression": "lz4",
            "tar2sqfs": "/scratch/packer",
        }
    }


@contextmanager
def started_again(slurm: Slurm, own: Tables) -> Iterator[Slurm]:
    """The gateway, started again with these tables; afterwards as it was."""
    cluster = slurm.cluster
    cluster.root(LOGIN, "install", "-d", "-o", "udi", "-m", "0700", "/scratch/spool")
    packer = cluster.directory / "scratch/packer"
    packer.write_text(_PACKER)
    packer.chmod(0o755)
    restart(slurm, own)
    try:
        yield slurm
    finally:
        restart(slurm, {})
        cluster.root(LOGIN, "rm", "-r", "/scratch/spool")  # what a killed gateway leaves in it stays for hours


def restart(slurm: Slurm, tables: Tables) -> None:
    slurm.cluster.root(LOGIN, "pkill", "-u", "udi", "-f", "udi-gateway", check=False)
    site.configure(slurm.cluster, tables)
    site.start_gateway(slurm.cluster)


def workers(slurm: Slurm, node: str) -> list[int]:
    """Workers of conversions on a node, by their numbers there."""
    done = slurm.cluster.root(node, "pgrep", "-u", "udi", "-f", "gateway.service.worker", check=False)
    return [int(number) for number in done.stdout.split()]


@contextmanager
def begun(slurm: Slurm, name: str) -> Iterator[subprocess.Popen[str]]:
    """A pull whose worker is in the middle of it on the node, until the end."""
    wait = slurm.cluster.directory / "scratch/wait"
    wait.touch()
    images.save(slurm.cluster.directory / "scratch/begun.tar", images.tiny(slurm.marker(name)), name, (ALICE, ALICE))
    process = slurm.cluster.popen_as(
        "alice", "udi", "pull", "docker-archive:/scratch/begun.tar", stderr=subprocess.PIPE, cwd="/scratch/alice"
    )
    try:
        packing = ("pgrep", "-u", "udi", "-f", "/scratch/packer")
        assert wait_until(lambda: slurm.cluster.root("n2", *packing, check=False).returncode == 0, SECONDS, 0.05)
        yield process
    finally:
        wait.unlink()
        process.kill()
        process.wait()


def is_gone(slurm: Slurm) -> bool:
    """Whether neither a worker nor Slurm's job of one is left, nor what it made."""
    queue = slurm.cluster.root(LOGIN, "squeue", "--noheader", "--user=udi").stdout
    given = [path for path in (slurm.cluster.directory / "scratch/spool").iterdir() if path.name.startswith("given.")]
    store = [path for path in (slurm.cluster.directory / "scratch/udi/images").iterdir() if ".tmp" in path.name]
    return not (workers(slurm, "n2") or queue or given or store)
