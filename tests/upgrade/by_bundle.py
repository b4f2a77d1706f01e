"""A later version comes by its bundle while jobs of this one run on a Cray, and goes again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.system.cray import A
from tests.system.software_replaced import tree
from tests.upgrade import hosts, versions
from tests.upgrade.cray import LINK, PYTHON, WITH_ITS_PYTHON, Site
from tests.upgrade.versions import Version


def test_jobs_outlive_another_bundle_and_the_way_back(site: Site, this: Version, later: Version) -> None:
    ours, theirs = site.carried(this), site.carried(later)
    hosts.unpack(site.shell, ours)
    site.begin()
    site.shell(hosts.INSTALL)
    site.serve()
    first = site.job("first")
    plan = site.plan([])
    assert plan.startswith("udi-plan 3\n")

    said = hosts.unpack(site.shell, theirs)
    assert "kept: /opt/udi/venv-0.1.0-" in said and os.readlink(site.machine.path("/opt/udi/venv")).startswith(
        "venv-0.2.0-"
    )
    known = site.plans()
    between = site.job("between")
    assert site.plan(known).startswith("udi-plan 3\n"), "install.sh alone let hooks be of the other version"
    site.pull("alice", "between:1")  # by the service that runs

    told = site.shell(hosts.INSTALL)
    assert LINK in told
    known = site.plans()
    second = site.job("second")
    assert site.plan(known).startswith("udi-plan 4\n")
    assert len(site.roots()) == 3
    site.ends_well(first, "first")

    hosts.unpack(site.shell, ours)
    site.shell(hosts.INSTALL)
    known = site.plans()
    third = site.job("third")
    assert site.plan(known).startswith("udi-plan 3\n")
    for job, name in ((between, "between"), (second, "second"), (third, "third")):
        site.ends_well(job, name)
    site.assert_clean()
    assert len(site.zips()) == 2 and os.readlink(site.machine.path(LINK)) in site.zips()
    refused = site.set_up(A, plan.replace("plan 3", "plan 4"))
    assert "begins with 'udi-plan 4'; this node reads 'udi-plan 3'" in refused


def test_an_interpreter_is_of_its_version(site: Site, this: Version, later: Version) -> None:
    """Another bundle's takes no effect before `udi-admin install`, on the host and on nodes, and what a job was set up
    with takes it down."""
    ours, theirs = site.carried(this), site.carried(later)
    python = site.install_bundled(ours)
    assert python.startswith("python-3.") and site.python_of_hooks() == python
    first = site.job("first")
    assert f"/dsl/opt/udi/{python}/bin/python3 -I" in site.teardown_of(first)

    said = hosts.unpack(site.shell, theirs, WITH_ITS_PYTHON)
    assert f"kept: /opt/udi/{python}, of another version" in said
    assert os.readlink(site.machine.path(PYTHON)) == site.python_of_hooks() == python
    between = site.job("between")
    assert f"/{python}/bin/python3 -I" in site.teardown_of(between)
    site.pull("alice", "between:1")

    assert PYTHON in site.shell(hosts.INSTALL).splitlines()
    other = os.readlink(site.machine.path(PYTHON))
    assert other != python and site.python_of_hooks() == other
    second = site.job("second")
    assert f"/{other}/bin/python3 -I" in site.teardown_of(second)
    site.ends_well(first, "first")

    hosts.unpack(site.shell, ours, WITH_ITS_PYTHON)
    site.shell(hosts.INSTALL)
    assert os.readlink(site.machine.path(PYTHON)) == site.python_of_hooks() == python
    third = site.job("third")
    for job, name in ((between, "between"), (second, "second"), (third, "third")):
        site.ends_well(job, name)
    site.assert_clean()
    assert "error" not in site.admin("check-config").split()


def test_a_second_environment_the_way_back_and_nothing_left(
    site: Site, this: Version, later: Version, work: Path
) -> None:
    """The later version comes as docs/upgrade.md has it for one without a bundle. In the end all is uninstalled."""
    hosts.unpack(site.shell, site.carried(this))
    site.begin()
    before = of_the_site(site)
    site.shell(hosts.INSTALL)
    site.serve()
    first = site.job("first")

    wheels = site.machine.path("/root/wheels")
    shutil.copytree(versions.wheels(later, work), wheels)
    hosts.into_environment(site.shell, "/root/wheels")
    wrong = site.machine.run_as("root", [f"{hosts.SECOND}/bin/udi-admin", "check-config"])
    rows = [line.split()[:2] for line in wrong.stdout.splitlines()]
    named = [row for row in rows if row and row[0] in ("warning", "error")]
    assert (wrong.returncode, named) == (2, [["error", "zip.version"], ["warning", "installed"]]), wrong.stdout
    site.shell(f"{hosts.SECOND}/bin/udi-admin install")
    known = site.plans()
    second = site.job("second")
    assert site.plan(known).startswith("udi-plan 4\n")
    site.ends_well(first, "first")

    site.shell(hosts.INSTALL)
    known = site.plans()
    third = site.job("third")
    assert site.plan(known).startswith("udi-plan 3\n")
    assert f"job {second}, job {third} still here" in site.admin("uninstall", code=4)
    for job, name in ((second, "second"), (third, "third")):
        site.ends_well(job, name)
    site.assert_clean()
    told = site.admin("uninstall")
    now = of_the_site(site)
    assert {path: what for path, what in now.items() if before.get(path) != what} == {}, told
    assert set(before) - set(now) == set(), told


def of_the_site(site: Site) -> dict[str, str]:
    """What the site's directories have, without what `install.sh` and pip put there."""
    return {path: what for path, what in tree(site).items() if "/opt/udi/venv" not in path}
