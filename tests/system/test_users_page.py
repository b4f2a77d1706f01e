"""Pages for users on a Cray with Torque: what is typed there is typed, and what is seen is what the page shows."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import pages, recipes
from tests.system import page_sites, programming_environment
from tests.system.cray import Cray
from tests.system.terminals import directories, finisher, typist
from xcsim import registry

_RECIPES = pages.chosen("torque", "workstation")
_ALICE = 1001


@pytest.fixture
def site(cray: Cray, recipe: pages.Recipe, tmp_path: Path) -> Iterator[Cray]:
    """The center's registry has app:1.0, which the first recipe pulls; alice has copied app.tar.gz; the site offers the
    page's modules."""
    home = cray.machine.path("/home/alice")
    archive = home / "app.tar"
    cray.ids["app:1.0"] = recipes.save(archive, "app:1.0", _ALICE)
    registry.push(cray.machine, archive, "app:1.0")
    if recipe is not _RECIPES[0]:
        cray.udi("alice", "pull", "app:1.0")
    cray.machine.run_as("alice", ["/opt/udi/bin/udi", "rm", "app:1.1"])  # as another recipe may have left it
    cray.ids["app:1.1"] = recipes.save(archive, "app:1.1", _ALICE)
    (home / "app.tar.gz").write_bytes(gzip.compress(archive.read_bytes(), 1))
    os.chown(home / "app.tar.gz", _ALICE, _ALICE)
    tables = programming_environment.example() | {"ssh": {"enabled": True}}
    tables["modules"]["licenses"] = recipes.LICENSES
    with programming_environment.installed(cray), page_sites.site_of(recipe)(cray, tables, tmp_path):
        yield cray


@pytest.mark.parametrize("recipe", _RECIPES, ids=str)
def test_a_recipe(site: Cray, recipe: pages.Recipe) -> None:
    terminal = pages.Terminal(typist(site), finisher(site), directories(site), _ALICE)
    terminal.play(recipe.steps)
    site.assert_clean()
