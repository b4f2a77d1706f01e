"""docs/install.md says what the code does: its configuration, its paths, and blocks that a walk understands."""

from __future__ import annotations

import pytest

from admin.seams.machines import machine_of
from admin.seams.tables import all_tables
from admin.sitefiles.all_files import site_files
from tests.install.page import CRAY, extended
from udi import config
from udi.registries import DOCKER_HUB


@pytest.mark.parametrize("choice", CRAY.choices)
def test_the_configuration_is_valid(choice: str) -> None:
    text = ""
    for block in CRAY.blocks(choice):
        if block.path == config.DEFAULT_PATH:
            text = extended(text, block.text)
    assert config.errors_in(text, "udi.toml", all_tables()) == []
    site = config.parse(text, config.DEFAULT_PATH)
    assert site.registry.hosts == (DOCKER_HUB,) and site.registry.default == DOCKER_HUB.name
    page = CRAY.document.read_text()
    for file in site_files(site, machine_of(site), site.path):
        directory, _, name = file.path.rpartition("/")
        assert f"{directory}/" in page and (name.split(".")[0] in page or "udi-gateway" in name), file.path
    assert site.install.zip in page


def test_a_walk_takes_one_choice() -> None:
    ours, theirs = (CRAY.blocks(choice) for choice in CRAY.choices)
    assert ours != theirs
    scripts = ["".join(block.text for block in each) for each in (ours, theirs)]
    assert ["--python bundle" in script for script in scripts] == [False, True]
    assert all("qsub -v UDI=" in script and "udi-admin install" in script for script in scripts)
