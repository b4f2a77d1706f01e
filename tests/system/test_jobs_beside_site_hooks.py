"""Jobs on a site with hooks and a submit filter of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.cray import MOM_PRIV, Cray

LOG = "/var/spool/site.log"


def put(cray: Cray, path: str, text: str) -> Path:
    file = cray.machine.path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return file


@pytest.fixture
def chained(cray: Cray) -> Iterator[Cray]:
    """The site's own prologues, epilogues and submit filter, in a chain with ours."""
    put(cray, "/opt/site/filter", 'echo "filter $*" >&2; cat; echo "# filtered"')
    with cray.configured({"torque": {"chain": "50-udi", "site_filter": "/opt/site/filter", "chain_deadline": 20}}):
        cray.admin("install")
        for kind in ("prologue", "epilogue"):
            for name in ("10-site", "90-site"):
                state = "$(ls /var/spool/udi/jobs 2>/dev/null)"
                put(cray, f"{MOM_PRIV}/{kind}.d/{name}", f'echo "{kind} {name} {state}" >>{LOG}; echo {name}')
        yield cray
    for kind in ("prologue", "epilogue"):
        for path in cray.machine.path(f"{MOM_PRIV}/{kind}.d").iterdir():
            path.unlink()
    cray.admin("install")
    for kind in ("prologue", "epilogue"):
        cray.machine.path(f"{MOM_PRIV}/{kind}.d").rmdir()
    cray.machine.path(LOG).unlink()


def test_a_site_with_hooks_of_its_own(chained: Cray) -> None:
    """Its programs run before and after ours, its filter too; and what ours set up is taken down where a later one of
    theirs deletes the job."""
    job = chained.run("alice")
    assert job.status == "0" and chained.marker("tiny:1") in job.output, job
    assert "10-site\n90-site\n" in job.output
    log = chained.machine.path(LOG)
    assert log.read_text().splitlines() == [
        "prologue 10-site ",
        f"prologue 90-site {job.id}",
        f"epilogue 10-site {job.id}",
        "epilogue 90-site ",
    ]
    chained.assert_clean()
    log.write_text("")
    put(chained, f"{MOM_PRIV}/prologue.d/90-site", "exit 1")
    job = chained.run("alice")
    assert job.status == "-2" and job.starts == 1, job
    assert log.read_text().splitlines()[-1] == "epilogue 90-site "
    chained.assert_clean()
