"""The site's files of the stand-ins' configuration: rendered, and run as a shell runs them."""

from __future__ import annotations

import subprocess
from pathlib import Path

from admin.install.installing import render_below
from admin.seams.machines import machine_of
from admin.sitefiles.all_files import site_files
from tests.unit.cray_standins import StandIns
from udi.config import SiteConfig
from udi.sitefiles import SiteFile

ARGUMENTS = ("123.sdb", "u", "g", "name", "nodes=1", "batch", "")
"""Of a hook that pbs_mom runs."""


def rendered(cray: StandIns, site: SiteConfig | None = None) -> Path:
    directory = cray.directory / "rendered"
    render_below(str(directory), files_of(cray, site))
    return directory


def files_of(cray: StandIns, site: SiteConfig | None = None) -> list[SiteFile]:
    site = site or cray.site
    return site_files(site, machine_of(site), str(cray.config_path))


def find(directory: Path, name: str) -> Path:
    return next(path for path in directory.rglob(name) if path.is_file())


def sh(*words: object, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [str(word) for word in words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={"PATH": "/usr/bin:/bin"} | environment,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout
