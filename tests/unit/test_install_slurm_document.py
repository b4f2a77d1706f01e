"""docs/install-slurm.md says what the code does: its configuration, its lines of slurm.conf, its paths."""

from __future__ import annotations

import re
from pathlib import Path

from admin.seams.machines import machine_of
from admin.seams.tables import all_tables
from admin.sitefiles.all_files import site_files
from slurm_hooks.settings import SlurmConfig
from slurm_hooks.site_files import slurm_conf
from udi import config

DOCUMENT = (Path(__file__).parents[2] / "docs/install-slurm.md").read_text()


def block(name: str) -> str:
    """The indented lines after the one that names a file."""
    found = re.search(rf"^    # {re.escape(name)}\n((?:    .*\n|\n)+)", DOCUMENT, re.MULTILINE)
    assert found, name
    return re.sub(r"^    ", "", found[1], flags=re.MULTILINE)


def site() -> config.SiteConfig:
    return config.parse(block("udi.toml"), "/etc/udi/udi.toml")


def test_the_configuration_is_valid() -> None:
    assert config.errors_in(block("udi.toml"), "udi.toml", all_tables()) == []
    assert site().workload_manager == "slurm"


def test_the_lines_of_slurm_conf_are_those_that_install_names() -> None:
    lines = [line for line in block("slurm.conf").splitlines() if line]
    assert lines == [f"{name}={value}" for name, value in slurm_conf(site()).items()]


def test_the_paths_are_those_of_the_programs() -> None:
    slurm = site().table(SlurmConfig)
    installed = {file.path for file in site_files(site(), machine_of(site()), site().path)}
    for path in ("/opt/udi/bin/udi-slurm-prolog", "/opt/udi/bin/udi-slurm-submit", slurm.plugstack):
        assert path in installed and path in DOCUMENT
    built = {"install -D .cache/slurm/udi.so": slurm.plugin_built}
    built |= {"install -D .cache/udi-run/udi-run": site().install.udi_run_built}
    for command, path in built.items():
        assert f"    {command} {path}\n" in DOCUMENT
    assert f"`{slurm.plugin}`" in DOCUMENT and f"`{site().install.zip}`" in DOCUMENT
