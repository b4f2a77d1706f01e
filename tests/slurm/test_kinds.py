"""Jobs of a real Slurm in images of every kind: of two users who pulled the same file, and of one who may not yet."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from tests.slurm.cluster import ALICE, BOB, LOOK, Slurm
from tests.system import images
from tests.system.made import KINDS, make


def _file(slurm: Slurm, directory: Path, kind: str) -> str:
    """A file of that kind where all users can read it; its path on the login host."""
    file = slurm.cluster.directory / f"scratch/made.{kind}"
    marker = slurm.marker(kind)
    if kind == "docker-archive":
        images.save(directory / "saved.tar", images.tiny(marker), "saved:1", (0, 0))
        file.write_bytes(gzip.compress((directory / "saved.tar").read_bytes(), 1))
    else:
        file.write_bytes(make(directory, marker, kind).read_bytes())
    file.chmod(0o644)
    return f"/scratch/{file.name}"


@pytest.mark.parametrize("kind", [*KINDS, "docker-archive"])
def test_jobs_of_two_users_and_not_of_who_has_no_access(slurm: Slurm, tmp_path: Path, kind: str) -> None:
    path = _file(slurm, tmp_path, kind)
    given = f"{kind}:1"
    name = f"vm:{given}" if kind.startswith("vm-") else given
    wanted = f"n1 {slurm.marker(kind)}"
    assert slurm.run("alice", "udi", "pull", f"{kind}:{path}", given).returncode == 0
    assert slurm.batch("alice", LOOK, "-w", "n1", f"--image={name}") == (0, f"{wanted} {ALICE}\n")
    refused = slurm.run("bob", "srun", "-w", "n1", f"--image={name}", "true")
    assert refused.returncode != 0
    assert f"image '{name}' not found, or you do not have access to it" in refused.stderr
    assert slurm.run("bob", "udi", "pull", f"{kind}:{path}", given).returncode == 0
    by_srun = slurm.run("bob", "srun", "-w", "n1", f"--image={name}", "sh", "-c", LOOK)
    assert (by_srun.returncode, by_srun.stdout) == (0, f"{wanted} {BOB}\n"), by_srun.stderr
    for user in ("alice", "bob"):
        assert slurm.run(user, "udi", "rm", name).returncode == 0
