"""Conversions on the nodes of a real Slurm, by `gateway.worker_prefix`: made there, and lost there without harm."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from slurmsim.cluster import LOGIN
from tests.slurm.cluster import LOOK, Slurm
from tests.slurm.elsewhere import SECONDS, all_is_gone, begun, restart, started_again, tables, workers
from tests.slurm.test_admin import admin
from xcsim.processes import wait_until

_TABLES = tables("/usr/bin/srun", "--quiet", "-N1", "-n1", "-wn2")


@pytest.fixture(scope="module")
def elsewhere(standing: Slurm) -> Iterator[Slurm]:
    """The gateway with workers on a node."""
    with started_again(standing, _TABLES) as slurm:
        yield slurm


@pytest.fixture
def converting(elsewhere: Slurm, slurm: Slurm) -> Slurm:
    """The cluster for one test."""
    return slurm


def test_an_image_is_made_on_a_node(converting: Slurm) -> None:
    """By a worker that Slurm knows as a job of the gateway's account; a job of its user then runs in it."""
    converting.pull("alice", "there:1")
    jobs = converting.cluster.root(LOGIN, "scontrol", "show", "jobs", "--oneliner").stdout
    assert [line for line in jobs.splitlines() if "UserId=udi(" in line and " NodeList=n2 " in line]
    assert converting.batch("alice", LOOK, "--image=there:1")[1].split()[1] == converting.marker("there:1")
    all_is_gone(converting)


def test_the_check_starts_a_worker_there(converting: Slurm) -> None:
    """By srun, as the gateway's account; the node sees the spool, and has the interpreter."""
    code, out, err = admin(converting, LOGIN, "check-config", "--json")
    rows = {row["check"]: row["level"] for row in json.loads(out)["rows"]}
    assert (rows["gateway.worker"], code) == ("ok", 0), out + err
    all_is_gone(converting)


@pytest.mark.parametrize("victim", ["worker", "srun", "job"])
def test_a_worker_that_is_lost_there(converting: Slurm, victim: str) -> None:
    """The user reads that the conversion ended; nothing is left of it, and another try succeeds."""
    cluster = converting.cluster
    with begun(converting, f"lost-{victim}:1") as pull:
        if victim == "worker":
            cluster.root("n2", "pkill", "-KILL", "-u", "udi", "-f", "gateway.service.worker")
        elif victim == "srun":
            cluster.root(LOGIN, "pkill", "-KILL", "-u", "udi", "srun")
        else:
            cluster.root(LOGIN, "scancel", "--user=udi")
        _, said = pull.communicate(timeout=SECONDS)
    assert pull.returncode == 6 and "the conversion terminated unexpectedly" in said, said
    if victim == "srun":  # Slurm keeps the allocation of an srun that is killed (InactiveLimit), without the worker
        assert wait_until(lambda: not workers(converting, "n2"), SECONDS, 0.1)
        cluster.root(LOGIN, "scancel", "--user=udi")
    all_is_gone(converting)
    converting.pull("alice", f"lost-{victim}:1")


def test_a_gateway_that_is_killed(converting: Slurm) -> None:
    """Its worker on the node ends with it, and what it left goes with the next start and pulls."""
    cluster = converting.cluster
    with begun(converting, "killed:1"):
        cluster.root(LOGIN, "pkill", "-KILL", "-u", "udi", "-f", "udi-gateway")
        assert wait_until(lambda: not workers(converting, "n2"), SECONDS, 0.1)
    assert wait_until(lambda: not cluster.root(LOGIN, "squeue", "--noheader", "--user=udi").stdout, SECONDS, 0.1)
    restart(converting, _TABLES)
    converting.pull("alice", "killed:1")
