"""munged ends on one host and is started again: nothing of Slurm works meanwhile, and everything does afterwards."""

from __future__ import annotations

from slurmsim.cluster import LOGIN
from tests.slurm.cluster import ALICE, LOOK, Slurm


def test_a_submission_without_munged_is_refused_and_the_next_one_runs(slurm: Slurm) -> None:
    def has_munge(host: str) -> bool:
        return slurm.cluster.root(host, "munge", "--no-input", check=False).returncode == 0

    slurm.cluster.kill(LOGIN, "munged", "TERM")
    assert [has_munge(host) for host in (LOGIN, *slurm.cluster.names)] == [False, True, True]
    refused = slurm.run("alice", "sbatch", "--image=tiny:1", input="#!/bin/sh\n")
    assert (refused.returncode, refused.stdout) == (1, "") and "Traceback" not in refused.stderr, refused.stderr
    slurm.cluster.start_munge(LOGIN)
    code, output = slurm.batch("alice", LOOK, "--image=tiny:1", "-w", "n1")
    assert (code, output) == (0, f"n1 {slurm.marker('tiny:1')} {ALICE}\n")
