"""This version comes while jobs of a really older one run on a Cray, and goes while jobs of its own run.

The older versions are commits of the project's history, so these tests need a clone that has it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.state import READY, JobDirectory, JobState
from tests.system.cray import SITE as TABLES
from tests.system.cray import A, merged
from tests.upgrade import hosts, versions
from tests.upgrade.cray import PYTHON, WITH_ITS_PYTHON, Site
from tests.upgrade.versions import Version
from udi.config import load
from udi.nodes import numbered


def test_jobs_of_an_older_bundle_and_of_this_one_outlive_each_other(site: Site, older: Version, this: Version) -> None:
    theirs, ours = site.carried(older), site.carried(this)
    hosts.unpack(site.shell, theirs)
    site.begin()
    site.shell(hosts.INSTALL)
    site.serve()
    [zip_of_old] = site.zips()
    old = site.job("old")
    assert zip_of_old in site.teardown_of(old)

    hosts.unpack(site.shell, ours)
    site.shell(hosts.INSTALL)
    [zip_of_new] = set(site.zips()) - {zip_of_old}
    new = site.job("new")
    assert zip_of_new in site.teardown_of(new)
    assert zip_of_old in site.teardown_of(old)
    site.ends_well(old, "old")

    second = site.job("second")
    hosts.unpack(site.shell, theirs)
    site.shell(hosts.INSTALL)
    back = site.job("back")
    assert zip_of_old in site.teardown_of(back)
    for job, name in ((new, "new"), (second, "second"), (back, "back")):
        site.ends_well(job, name)
    site.assert_clean()


def test_an_interpreter_from_before_each_version_had_its_own(site: Site, older: Version, this: Version) -> None:
    """It runs at the link, which `install.sh` then moved at once. It goes on until `udi-admin install`."""
    theirs, ours = site.carried(older), site.carried(this)
    python = site.install_bundled(theirs)
    old = site.job("old")
    assert f"{PYTHON}/bin/python3 -I" in site.teardown_of(old)

    hosts.unpack(site.shell, ours, WITH_ITS_PYTHON)
    assert os.readlink(site.machine.path(PYTHON)) == python
    between = site.job("between")
    site.shell(hosts.INSTALL)
    other = os.readlink(site.machine.path(PYTHON))
    assert other != python and site.python_of_hooks() == other
    new = site.job("new")
    assert f"/{other}/bin/python3 -I" in site.teardown_of(new)
    site.ends_well(old, "old")

    hosts.unpack(site.shell, theirs, WITH_ITS_PYTHON)
    assert os.readlink(site.machine.path(PYTHON)) == python and site.python_of_hooks() == other
    second = site.job("second")
    assert f"/{other}/bin/python3 -I" in site.teardown_of(second)
    site.shell(hosts.INSTALL)
    back = site.job("back")
    for job, name in ((between, "between"), (new, "new"), (second, "second"), (back, "back")):
        site.ends_well(job, name)
    site.assert_clean()


@pytest.fixture
def begun(site: Site, oldest: Version, this: Version, work: Path, tmp_path: Path) -> Iterator[Site]:
    """The oldest version as README.md had it then, in /opt/udi/venv, and this one beside it."""
    for version in (oldest, this):
        target = site.machine.path(f"/root/wheels-{version.name}")
        target.mkdir()
        for wheel in versions.wheels(version, work).iterdir():
            (target / wheel.name).write_bytes(wheel.read_bytes())
    program = site.machine.path("/opt/udi/lib/udi-run")
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_bytes((oldest.source.parent / "cache/udi-run/udi-run").read_bytes())
    program.chmod(0o755)
    hosts.into_environment(site.shell, f"/root/wheels-{oldest.name}", "/opt/udi/venv")
    hosts.into_environment(site.shell, f"/root/wheels-{this.name}")
    site.begin(merged(TABLES))
    configuration = site.machine.path("/etc/udi/udi.toml")
    known = [line for line in configuration.read_text().splitlines() if "user_formats" not in line]
    configuration.write_text("\n".join(known) + "\n")
    site.shell(hosts.INSTALL)
    site.serve()
    yield site


def test_a_job_of_plans_2_ends_well_after_an_upgrade(begun: Site) -> None:
    """Its state does not say by what it is taken down: this version does it."""
    old = begun.job("old")
    plan = begun.plan([])
    assert plan.startswith("udi-plan 2\n")
    begun.shell(f"{hosts.SECOND}/bin/udi-admin install")
    known = begun.plans()
    new = begun.job("new")
    assert begun.plan(known).startswith("udi-plan 3\n")
    assert "begins with 'udi-plan 2'; this node reads 'udi-plan 3'" in begun.set_up(A + 2, plan)
    begun.ends_well(old, "old")
    begun.ends_well(new, "new")
    begun.assert_clean()


_LOADS = """
import sys
sys.path.insert(0, sys.argv[1])
from jobs.state import JobDirectory
from udi.config import load
from udiroot.errors import UdiError
try:
    JobDirectory(load(sys.argv[2]), "7.sdb").load()
except UdiError as error:
    print(error.message, error.hint, sep="; ")
"""


def test_a_state_of_this_version_is_refused_by_name_by_that_of_plans_2(oldest: Version, tmp_path: Path) -> None:
    """So its jobs must have ended before the way back to there; what to do with one that has not is said."""
    configuration = tmp_path / "udi.toml"
    configuration.write_text(f'[store]\npath = "/scratch/udi"\n[jobs]\nstate = "{tmp_path}"\n')
    configuration.chmod(0o644)
    (tmp_path / "7.sdb").mkdir()
    state = JobState("7.sdb", "alice", "tiny:1", "0" * 64, "3", (numbered(A),), "/plan", READY, 1, teardown="line")
    JobDirectory(load(str(configuration)), "7.sdb").save(state)
    words = [sys.executable, "-P", "-c", _LOADS, str(oldest.source), str(configuration)]
    said = subprocess.run(words, cwd=oldest.source, capture_output=True, text=True, check=True).stdout
    assert f"{tmp_path}/7.sdb/state.json cannot be read: it has not the fields job, user, image" in said
    assert "an operator finds the nodes of the job, and then runs: udi-admin takedown 7.sdb --nodes NODES" in said
