"""Commands of README.md and of other pages for users, typed on a real Slurm as they stand there.

`make test-recipes` runs this.
"""

from __future__ import annotations

import pytest

from tests import recipes, typed_lines
from tests.slurm.cluster import ALICE, Slurm

_JOB = "#!/bin/sh\necho in $(cat /etc/app-release)\n"
_MODULES = {"mpich": {"environment": {"set": {"MPI": "1"}}}, "gpu": {"environment": {"set": {"GPU": "none"}}}}


@pytest.fixture
def site(slurm: Slurm) -> Slurm:
    """alice has app:1.0, and the pages' files in her directory."""
    scratch = slurm.scratch("alice")
    recipes.save(scratch / "app.tar", "app:1.0", ALICE)
    assert slurm.run("alice", "udi", "pull", "docker-archive:app.tar").returncode == 0
    (scratch / "run").mkdir(exist_ok=True)
    (scratch / "data").mkdir(exist_ok=True)
    (scratch / "job.sh").write_text(_JOB)
    (scratch / "run.toml").write_text('image = "app:1.0"\n')
    return slurm


@pytest.mark.parametrize("page", typed_lines.SLURM)
def test_commands(site: Slurm, page: str) -> None:
    with site.configured({"modules": _MODULES}):
        for line in typed_lines.lines(page, *typed_lines.SLURM[page]):
            here = line.replace("/scratch/me/", "/scratch/alice/")
            typed = "srun /opt/app/bin/solver\n" if here.startswith("salloc") else ""
            done = site.run("alice", "bash", "-c", here, input=typed)
            assert done.returncode == 0, (line, done.stdout, done.stderr)
            if here.startswith("sbatch"):
                job = done.stdout.split()[-1]
                site.await_state(job, "COMPLETED", "FAILED")
                written = (site.scratch("alice") / f"slurm-{job}.out").read_text()
                assert written == "in app 1.0\n", (line, written)
            else:
                assert done.stdout.count("solver:") == 2, (line, done.stdout, done.stderr)
