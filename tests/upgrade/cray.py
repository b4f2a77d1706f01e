"""A machine of xcsim without our software, which comes and changes in the documented ways."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.system.cray import SITE, STATE, A, Cray
from tests.system.scripts import ranks
from tests.upgrade import hosts
from tests.upgrade.versions import Version
from xcsim import registry
from xcsim import site as xcsim_site
from xcsim.machine import Machine
from xcsim.settings import Settings
from xcsim.site import Tables

LINK = "/opt/udi/node/udi.zip"
PYTHON = "/opt/udi/python"
_ON_NODES = f"/dsl{PYTHON}"
BUNDLED: Tables = {
    **SITE,
    "install": {"python": f"{PYTHON}/bin/python3"},
    "node": {
        **SITE["node"],
        "python": [
            *(f"{_ON_NODES}/lib/ld-linux-x86-64.so.2", "--library-path", f"{_ON_NODES}/lib"),
            f"{_ON_NODES}/bin/python3",
        ],
    },
}
"""As docs/install.md has it for the interpreter of the bundle."""
WITH_ITS_PYTHON = ("--python", "bundle")
"""How `install.sh` is told to use it."""


def waits(name: str) -> str:
    """A job that ends when the test says so, after it has looked into its image."""
    return f"until [ -e /home/alice/{name} ]; do sleep 0.1; done\n" + ranks(1)


class Site(Cray):
    """The machine, and what an operator types on its login node, which has the shared root."""

    def shell(self, script: str) -> str:
        done = self.machine.run_as("root", ["/bin/sh", "-ec", script], timeout=300.0)
        assert done.returncode == 0, f"{script}: {done.returncode} {done.stdout}{done.stderr}"
        return done.stdout

    def carried(self, version: Version) -> str:
        """Both files of the version's bundle on the login node; the directory."""
        hosts.carry(version, self.machine.path(f"/root/{version.name}"))
        return f"/root/{version.name}"

    def begin(self, tables: Tables = SITE) -> None:
        """The configuration, the registry, and after this the first `udi-admin install`."""
        xcsim_site.configure(self.machine, tables)
        registry.start(self.machine)

    def serve(self) -> None:
        """The gateway, and images."""
        xcsim_site.start_gateway(self.machine)
        self.pull("alice", "tiny:1")
        self.before = self.pictures()

    def install_bundled(self, bundle: str) -> str:
        """From nothing to a gateway that serves, with the interpreter of a bundle; the name of its directory."""
        hosts.unpack(self.shell, bundle, WITH_ITS_PYTHON)
        self.begin(BUNDLED)
        self.shell(hosts.INSTALL)
        self.serve()
        return os.readlink(self.machine.path(PYTHON))

    def job(self, name: str) -> str:
        """A job on one node, running until `let(name)`."""
        job = self.qsub("alice", waits(name), nodes=1)
        self.running(job)
        return job

    def let(self, name: str) -> None:
        self.machine.path(f"/home/alice/{name}").touch()

    def ends_well(self, job: str, name: str) -> None:
        """Let it look into its image and end; nothing was amiss."""
        self.let(name)
        ended = self.ended(job)
        assert ended.status == "0" and self.marker("tiny:1") in ended.output, ended
        assert not [line for line in ended.log if "ERROR" in line or "WARNING" in line], ended.log

    def plan(self, newest: Sequence[str]) -> str:
        """The only plan that is not among those that there were."""
        [name] = sorted(set(self.plans()) - set(newest))
        return self.machine.path(f"/scratch/udi/plans/{name}").read_text()

    def teardown_of(self, job: str) -> str:
        """The command that takes a running job down, as its state has it."""
        kept = json.loads(self.machine.path(f"{STATE}/jobs/{job}/state.json").read_text())
        return str(kept.get("teardown", ""))

    def python_of_hooks(self) -> str:
        """The directory of the interpreter by which the installed hooks and the gateway's service run now."""
        found = self.shell("readlink -f $(sed -n 's/^exec \\([^ ]*\\) .*/\\1/p' /opt/udi/bin/udi-gateway)")
        return found.partition("/bin/")[0].rpartition("/")[2]

    def zips(self) -> list[str]:
        return sorted(path.name for path in self.machine.path("/opt/udi/node").glob("udi-*.zip"))


@contextmanager
def bare(state: Path) -> Iterator[Site]:
    """A machine that is up, without software of ours."""
    site = Site(Machine(state))
    try:
        site.machine.up(Settings(first_nid=A, schedule_delay=0.05, release_delay=0.05), with_site=False)
        yield site
    finally:
        site.machine.down()
