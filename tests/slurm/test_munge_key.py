"""The MUNGE key of a cluster changes while jobs run: what is seen until each host has it, by docs/operations.md."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from slurmsim.cluster import LOGIN
from tests.slurm.cluster import ALICE, Slurm
from tests.slurm.test_failures import end, running
from tests.slurm.test_kills import settle


def change_key(slurm: Slurm, key: str, hosts: Sequence[str]) -> None:
    """As an operator does: the file on each host, then munged anew there."""
    cluster = slurm.cluster
    for host in hosts:
        cluster.root(host, "sh", "-ec", f"printf %s {key} >/etc/munge/munge.key")
        cluster.kill(host, "munged", "TERM")
    for host in (LOGIN, *cluster.names):
        if cluster.root(host, "munge", "--no-input", check=False).returncode:
            cluster.start_munge(host)


def test_all_hosts_get_it_while_a_job_runs(slurm: Slurm) -> None:
    """Within the time after which Slurm gives up a node: no daemon is started again, and the job ends as others do."""
    job = running(slurm)
    change_key(slurm, secrets.token_hex(64), (LOGIN, *slurm.cluster.names))
    end(slurm, job)
    assert slurm.output("alice", job).splitlines()[-1] == f"n1 {slurm.marker('tiny:1')} {ALICE}"
    assert set(settle(slurm).values()) == {"idle"}
