"""The MUNGE key of a cluster changes while jobs run: what is seen until each host has it, by docs/operations.md."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence

from slurmsim.cluster import LOGIN
from tests.slurm.cluster import ALICE, LOOK, Slurm
from tests.slurm.test_failures import end, running
from tests.slurm.test_kills import health, settle
from xcsim.processes import wait_until

_SECONDS = 60.0


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


def test_a_node_that_was_forgotten(slurm: Slurm) -> None:
    """Its health check drains nothing, its tasks stay in their image, and Slurm gives it up until it has the key."""
    job, key = running(slurm), secrets.token_hex(64)
    change_key(slurm, key, (LOGIN, "n2"))
    health(slurm, "n1")
    log = slurm.cluster.root("n1", "cat", "/var/log/udi/hooks.log").stdout
    assert "jobs could not be told from what they left: " in log.splitlines()[-1]
    refused = slurm.cluster.root("n1", "sbatch", "--wrap", "true", check=False)
    assert refused.returncode and "Batch job submission failed" in refused.stderr, refused.stderr
    assert {line.split(" ")[0] for line in slurm.tasks("n1")} == {f"/var/udi/{job}"}
    code, out = slurm.batch("alice", LOOK, "--image=tiny:1", "-w", "n2")
    assert (code, out) == (0, f"n2 {slurm.marker('tiny:1')} {ALICE}\n"), "the others go on"
    assert wait_until(lambda: slurm.cluster.states()["n1"] == "down", _SECONDS, 0.1), slurm.cluster.states()
    assert slurm.cluster.reason("n1") == "Not responding"
    slurm.cluster.root(LOGIN, "scontrol", "update", "nodename=n1", "state=drain", "reason=key")
    change_key(slurm, key, ("n1",))
    assert wait_until(lambda: not slurm.left("n1"), _SECONDS, 0.1), slurm.left("n1")
    time.sleep(1.5)  # slurmd runs no Prolog for a job that comes back within the second of its end
    slurm.cluster.root(LOGIN, "scontrol", "update", "nodename=n1", "state=resume")
    end(slurm, job)
    assert slurm.output("alice", job).splitlines()[-1] == f"n1 {slurm.marker('tiny:1')} {ALICE}"
    settle(slurm)
