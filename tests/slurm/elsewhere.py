"""Conversions whose workers run on a node of a real Slurm (`gateway.worker_prefix`), and what is left of them."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from slurmsim import site
from slurmsim.cluster import LOGIN
from tests.conversions import PACKING, WORKER, conversions, send
from tests.gateway.archives import file
from tests.slurm.cluster import ALICE, Slurm
from tests.system import images
from udi import durable
from xcsim.processes import members, namespace_of, wait_until
from xcsim.site import Tables

_PACKER = """#!/bin/sh
while [ -e /scratch/wait ]; do sleep 0.05; done
exec /usr/bin/tar2sqfs "$@"
"""
SECONDS = 60.0
_TO_END_SECONDS = 180.0
_LARGE = 24 << 20
_TRIES = 5


def tables(*prefix: str) -> Tables:
    """The configuration of a gateway whose workers this command starts, with a packer that can be made to wait."""
    return {"gateway": {**default_tables(*prefix)["gateway"], "compression": "lz4", "tar2sqfs": "/scratch/packer"}}


def default_tables(*prefix: str) -> Tables:
    """The same with the default compression, so that workers write images themselves."""
    return {"gateway": {"worker_prefix": [*prefix], "spool": "/scratch/spool"}}


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


def left(slurm: Slurm) -> list[str]:
    """What there still is of conversions: workers, Slurm's jobs of them, and what they made."""
    found = [f"on n2: {words}" for words in processes(slurm, "n2").values()]
    found += slurm.cluster.root(LOGIN, "squeue", "--noheader", "--user=udi").stdout.splitlines()
    for directory, start in (("spool", "given."), ("udi/images", durable.TEMPORARY)):
        place = slurm.cluster.directory / "scratch" / directory
        found += [str(path) for path in place.iterdir() if path.name.startswith(start)]
    return found


def all_is_gone(slurm: Slurm) -> None:
    """Wait until nothing of conversions is left, however long Slurm takes to end a job on a busy machine."""
    assert wait_until(lambda: not left(slurm), _TO_END_SECONDS, 0.1), left(slurm)


def processes(slurm: Slurm, node: str) -> dict[int, str]:
    """The processes of conversions on a node, companions included, by their numbers on this machine."""
    return conversions(members("pid", namespace_of(slurm.cluster.host(node).pid, "pid")))


@contextmanager
def packing(slurm: Slurm, name: str) -> Iterator[subprocess.Popen[str]]:
    """A pull of a large image whose companions are at work on the node; the worker is stopped there, until the end or
    until `go_on`."""
    archive = slurm.cluster.directory / "scratch/packing.tar"
    layers = [*images.tiny(slurm.marker(name)), [file("usr/data", base64.b64encode(os.urandom(_LARGE)))]]
    images.save(archive, layers, name, (ALICE, ALICE), how="gzip")
    for _ in range(_TRIES):
        words = ("udi", "pull", f"docker-archive:/scratch/{archive.name}")
        process = slurm.cluster.popen_as("alice", *words, stderr=subprocess.PIPE, cwd="/scratch/alice")
        try:
            if _is_stopped(slurm, process):
                yield process
                return
        finally:
            go_on(slurm)
            process.kill()
            process.wait()
        slurm.run("alice", "udi", "rm", name)  # it was made before it could be stopped
    raise AssertionError("no companion was met at work")


def _is_stopped(slurm: Slurm, pull: subprocess.Popen[str]) -> bool:
    while pull.poll() is None:
        found = processes(slurm, "n2")
        if PACKING in found.values():
            send(found, WORKER, signal.SIGSTOP)
            return PACKING in processes(slurm, "n2").values()
        time.sleep(0.01)
    return False


def go_on(slurm: Slurm) -> None:
    """Let whatever was stopped on the node go on."""
    for pid in members("pid", namespace_of(slurm.cluster.host("n2").pid, "pid")):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
