"""docs/install-slurm.md says what the code does: its configuration, its lines of slurm.conf, its paths."""

from __future__ import annotations

import pytest

from admin.seams.machines import machine_of
from admin.seams.tables import all_tables
from admin.sitefiles.all_files import site_files
from slurm_hooks.settings import SlurmConfig
from slurm_hooks.site_files import slurm_conf
from tests.install.page import SLURM, Block, extended
from udi import config

DOCUMENT = SLURM.document.read_text()


def files(path: str) -> list[Block]:
    """What the page writes there, one after the other."""
    return [block for block in SLURM.blocks("from-bundle") if block.path == path]


def site() -> config.SiteConfig:
    return config.parse(files(config.DEFAULT_PATH)[0].text, config.DEFAULT_PATH)


def test_the_configuration_is_valid_at_each_step() -> None:
    text = ""
    for block in files(config.DEFAULT_PATH):
        text = extended(text, block.text)
        assert config.errors_in(text, "udi.toml", all_tables()) == []
        assert config.parse(text, config.DEFAULT_PATH).workload_manager == "slurm"


def test_the_lines_of_slurm_conf_are_those_that_install_names() -> None:
    [block] = files("/etc/slurm/slurm.conf")
    assert block.text.splitlines() == [f"{name}={value}" for name, value in slurm_conf(site()).items()]


def test_the_paths_are_those_of_the_programs() -> None:
    slurm = site().table(SlurmConfig)
    installed = {file.path for file in site_files(site(), machine_of(site()), site().path)}
    for path in ("/opt/udi/bin/udi-slurm-prolog", "/opt/udi/bin/udi-slurm-submit", slurm.plugstack):
        assert path in installed and path in DOCUMENT
    built = {"install -D .cache/slurm/udi.so": slurm.plugin_built}
    built |= {"install -D .cache/udi-run/udi-run": site().install.udi_run_built}
    for command, path in built.items():
        assert f"\n{command} {path}\n" in DOCUMENT
    assert f"`{slurm.plugin}`" in DOCUMENT and f"`{site().install.zip}`" in DOCUMENT


@pytest.mark.parametrize("choice", SLURM.choices)
def test_a_walk_takes_one_choice_and_ends_where_nothing_is_left(choice: str) -> None:
    script = "".join(block.text for block in SLURM.blocks(choice))
    assert ("install.sh" in script) != ("pip install" in script)
    assert script.index("udi-admin install") < script.index("sbatch --wait") < script.index("udi-admin uninstall")
