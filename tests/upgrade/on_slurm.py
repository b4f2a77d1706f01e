"""Another version comes while jobs run on a native Slurm, its hooks, plugin and node software; and goes again."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from slurmsim import site
from slurmsim.cluster import LOGIN
from tests.slurm.cluster import LOOK, Slurm
from tests.slurm.conftest import placed
from tests.upgrade import hosts
from tests.upgrade.versions import Version
from xcsim.site import Tables

_TABLES: Tables = {"slurm": {"plugin_built": "/opt/udi/lib/slurm/udi.so"}}
"""What slurmsim's own site has elsewhere than install.sh."""


@dataclass
class Site(Slurm):
    """A cluster whose software comes from bundles, typed on the login host; all hosts share /opt/udi and /etc/udi."""

    def shell(self, script: str) -> str:
        return self.cluster.root(LOGIN, "/bin/sh", "-ec", script, timeout=300.0).stdout

    def carried(self, version: Version) -> str:
        hosts.carry(version, self.cluster.directory / f"scratch/{version.name}")
        return f"/scratch/{version.name}"

    def begin(self, directory: str) -> None:
        """The first version, from its bundle to a cluster with an image."""
        hosts.unpack(self.shell, directory)
        site.configure(self.cluster, _TABLES)
        self.cluster.configure({})
        self.shell(hosts.INSTALL)
        wanted = self.shell(
            "/opt/udi/venv/bin/python -I -c 'import json; from slurm_hooks.site_files import slurm_conf\n"
            'from udi.config import load\nprint(json.dumps(dict(slurm_conf(load("/etc/udi/udi.toml")))))\''
        )
        self.cluster.configure(json.loads(wanted))
        site.start_gateway(self.cluster)
        self.cluster.start_slurm()
        self.pull("alice", "tiny:1")

    def job(self, name: str) -> str:
        """A batch job on one node, running, which looks into its image when the test says so."""
        script = f"touch began-{name}\nuntil [ -e {name} ]; do sleep 0.1; done\n{LOOK}"
        job = self.submit("alice", script, "--image=tiny:1", "-n", "1")
        self.await_file(self.scratch("alice") / f"began-{name}")
        return job

    def ends_well(self, job: str, name: str) -> None:
        """A step of the job, by the plugin of now, is in the image, and so is what the job does then; it ends well."""
        step = self.run("alice", "srun", f"--jobid={job}", "--overlap", "sh", "-c", LOOK)
        assert self.marker("tiny:1") in step.stdout, step.stderr
        (self.scratch("alice") / name).touch()
        assert self.await_state(job, "COMPLETED", "FAILED", "CANCELLED", "NODE_FAIL").startswith("COMPLETED")
        assert self.marker("tiny:1") in self.output("alice", job)

    def node_of(self, job: str) -> str:
        [name] = [name for name in self.cluster.names if job in self.roots(name)]
        return name

    def software_of(self, job: str) -> str:
        """The node software that takes the job down."""
        kept = self.cluster.root(self.node_of(job), "cat", f"/var/run/udi/{job}.down").stdout
        [name] = set(re.findall(r"udi-[0-9a-f]{16}\.zip", kept))
        return str(name)


@pytest.fixture
def cluster() -> Iterator[Site]:
    """Two nodes without software of ours."""
    with placed(Site) as made:
        made.cluster.start()
        yield made


@pytest.mark.parametrize("other", ["later", "older"])
def test_jobs_outlive_another_version_and_the_way_back(
    cluster: Site, this: Version, other: str, request: pytest.FixtureRequest
) -> None:
    """Of a later version nothing on a node is understood by this one; the older one is of the project's history."""
    theirs = request.getfixturevalue(other)
    before, after = (this, theirs) if other == "later" else (theirs, this)
    first, second = cluster.carried(before), cluster.carried(after)
    cluster.begin(first)
    plugin = cluster.cluster.directory / "opt/lib/udi.so"
    was = plugin.read_bytes()
    old = cluster.job("old")
    hosts.unpack(cluster.shell, second)
    cluster.shell(hosts.INSTALL)
    new = cluster.job("new")
    assert cluster.software_of(old) != cluster.software_of(new)
    cluster.ends_well(old, "old")

    hosts.unpack(cluster.shell, first)
    cluster.shell(hosts.INSTALL)
    assert plugin.read_bytes() == was
    back = cluster.job("back")
    assert cluster.software_of(back) != cluster.software_of(new)
    for job, name in ((new, "new"), (back, "back")):
        cluster.ends_well(job, name)
    cluster.await_clean()
