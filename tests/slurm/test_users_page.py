"""Pages for users on a real Slurm: what is typed there is typed, and what is seen is what the page shows."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator

import pytest

from tests import pages, recipes
from tests.slurm.cluster import ALICE, Slurm

_RECIPES = pages.chosen("slurm")


@pytest.fixture
def site(slurm: Slurm) -> Iterator[Slurm]:
    """alice has app:1.0, and has copied app.tar.gz."""
    archive = slurm.scratch("alice") / "app.tar"
    slurm.ids["app:1.0"] = recipes.save(archive, "app:1.0", ALICE)
    assert slurm.run("alice", "udi", "pull", "docker-archive:app.tar").returncode == 0
    slurm.run("alice", "udi", "rm", "app:1.1")  # as another recipe may have left it
    slurm.ids["app:1.1"] = recipes.save(archive, "app:1.1", ALICE)
    packed = slurm.scratch("alice") / "app.tar.gz"
    packed.write_bytes(gzip.compress(archive.read_bytes(), 1))
    os.chown(packed, ALICE, ALICE)
    with slurm.configured({"modules": {"licenses": recipes.LICENSES}}):
        yield slurm


@pytest.mark.parametrize("recipe", _RECIPES, ids=str)
def test_a_recipe(site: Slurm, recipe: pages.Recipe) -> None:
    def run(line: str, user: str) -> str:
        site.cluster.await_states("idle")  # else srun says that it waits
        return site.run(user, "bash", "-c", f"exec 2>&1; {line}").stdout

    def finish(job: str) -> None:
        site.await_state(job, "COMPLETED", "FAILED")

    pages.Terminal(run, finish, {"alice": site.scratch("alice")}, ALICE).play(recipe.steps)
