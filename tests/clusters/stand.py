"""A site whose machine is a cluster: its configuration, its image store with one image, and the node software."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from clusters.machine import Cluster as Machine
from tests import udi_run
from tests.clusters.hosts import Cluster
from tests.clusters.hosts import Host as ClusterHost
from tests.node.rig import ALICE, STORE_UID, make_tree
from udi import nodezip
from udi.accounts import Account
from udi.command import Deadline
from udi.config import SiteConfig, parse
from udi.facts import Facts, Ref
from udi.fanout import FanOutResult
from udi.nodecommand import check_command
from udi.nodes import Node, named
from udi.platform import Host
from udi.reference import ImageReference
from udi.request import JobRequest

IMAGE_ID = "cd" * 32
NONCE = "ef" * 16
_SITE = """
machine = "clusters"
[store]
path = "{directory}/store"
account = "{account}"
[node]
root = "/mnt/udi"
run = "/run/udi"
zip = "{directory}/udi.zip"
python = ["/usr/bin/python3"]
deadline = 20
[jobs]
state = "{directory}/spool/jobs"
nodes = "{directory}/spool/nodes"
[clusters]
out_of_service = "{directory}/spool/out-of-service.json"
fanout_deadline = 30
"""


@dataclass
class Stand:
    """Everything that a job on the cluster needs; `first` and `second` run, `third` does not."""

    directory: Path
    cluster: Cluster
    site: SiteConfig = field(init=False)
    machine: Machine = field(init=False)
    first: ClusterHost = field(init=False)
    second: ClusterHost = field(init=False)
    third: ClusterHost = field(init=False)

    def __post_init__(self) -> None:
        self.site = self.configured()
        self.machine = Machine(self.site)
        nodezip.build(self.site, self.site.node.zip, {"udi-run": udi_run.program()})
        self._make_store()
        self.first, self.second, self.third = self.cluster.hosts.values()
        for host in (self.first, self.second):
            host.start()

    def configured(self, **settings: object) -> SiteConfig:
        """The site, with these settings of its table `[clusters]`."""
        text = _SITE.format(directory=self.directory, account=STORE_UID)
        table = {"nodes": ",".join(self.cluster.names), "ssh": self.cluster.ssh()} | settings
        return parse(text + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items()), "udi.toml")

    def request(self, job: str) -> JobRequest:
        who = Account(ALICE.name, ALICE.uid, ALICE.gid, ALICE.groups, ALICE.home, ALICE.shell)
        return JobRequest(job, who, ImageReference.parse("tiny"), ())

    def hosts(self, *hosts: ClusterHost) -> list[Host]:
        """What a workload manager would name: a login host too."""
        return [Host("login1", 1), *(Host(host.name, 2) for host in hosts)]

    def check(self, *hosts: ClusterHost) -> FanOutResult:
        """The cleanliness check on hosts."""
        return self.run(check_command(self.site, "", NONCE), *hosts)

    def run(self, command_line: str, *hosts: ClusterHost) -> FanOutResult:
        return self.machine.run([node_of(host) for host in hosts], command_line, NONCE, Deadline(20))

    def _make_store(self) -> None:
        store = self.directory / "store"
        for name in ("images", "refs", "plans"):
            (store / name).mkdir(parents=True)
        make_tree(self.directory / "tree")
        image = store / f"images/{IMAGE_ID}.squashfs"
        command = ["mksquashfs", str(self.directory / "tree"), str(image), "-noappend", "-quiet", "-no-progress"]
        subprocess.run(command, check=True, capture_output=True)
        image.chmod(0o444)
        facts = Facts(id=IMAGE_ID, format="squashfs", size=image.stat().st_size, sha256="0" * 64)
        (store / f"images/{IMAGE_ID}.json").write_text(facts.to_json())
        reference = str(ImageReference.parse("tiny"))
        (store / f"refs/{reference}.json").write_text(Ref(reference=reference, id=IMAGE_ID).to_json())
        for path in (store, *store.rglob("*")):
            os.chown(path, STORE_UID, STORE_UID)


def node_of(host: ClusterHost) -> Node:
    """The host as the machine knows it."""
    return named(host.name)
