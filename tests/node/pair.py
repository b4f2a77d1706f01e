"""Two compute nodes on one network, with plans as the prologue makes them for a site that has the private sshd."""

from __future__ import annotations

import copy
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from alps.machine import Alps
from tests.node.rig import ALICE, IMAGE_ID, SITE, STORE_UID, Rig
from udi.accounts import Account
from udi.config import SiteConfig, parse
from udi.facts import Facts
from udi.nodes import NodeSlots, numbered
from udi.planning import make_plan
from udi.reference import ImageReference
from udi.request import JobRequest
from udi.sshkeys import SshKeys, make_keys
from udiroot.plan import NodePlan, PlanUser
from xcsim.network import Network, hosts
from xcsim.node import ComputeNode, NodeFiles
from xcsim.picture import NodePicture

NIDS = (412, 413)
PORT = 1204
PROGRAMS = Path(__file__).parents[2] / ".cache/sshd/bin"
"""Where `make sshd` puts them."""
_SITE = """
filesystems = [{{ source = "/home" }}, {{ source = "/etc/xcsim", read_only = true }}]
[ssh]
enabled = {enabled}
programs = "/lus/software/ssh"
[install]
ssh = "{directory}/software/ssh"
"""


@dataclass
class Pair:
    """Both nodes see the same file systems, which are those of `rig`."""

    rig: Rig
    nodes: dict[int, Rig] = field(init=False)
    site: SiteConfig = field(init=False)
    network: Network = field(init=False)

    def __post_init__(self) -> None:
        directory = self.rig.directory
        shutil.copytree(PROGRAMS, directory / "software/ssh")
        (directory / "home/alice").mkdir(exist_ok=True)
        self.site = self.configured(enabled=True)
        self.network = Network(directory / "network").start()
        shared = self.rig.node.files.mounts
        files = NodeFiles(directory / "pair", mounts=shared, network=self.network, hosts=hosts(list(NIDS)))
        self.nodes = {}
        for nid in NIDS:
            self.nodes[nid] = copy.copy(self.rig)
            self.nodes[nid].node = ComputeNode(nid, files).start()

    def close(self) -> None:
        for one in self.nodes.values():
            one.node.stop()
        self.network.stop()

    def configured(self, *, enabled: bool) -> SiteConfig:
        store = SITE.replace('path = "/lus/udi"', f'path = "/lus/udi"\naccount = "{STORE_UID}"')
        words = _SITE.format(enabled=str(enabled).lower(), directory=self.rig.directory)
        return parse(store + words, "udi.toml")

    def keys(self) -> SshKeys:
        return make_keys(self.site, str(self.rig.directory))

    def plan(self, keys: SshKeys | None, user: PlanUser = ALICE, job: str = "123.sdb", **facts: object) -> NodePlan:
        """What the prologue would plan for that user on both nodes."""
        who = Account(user.name, user.uid, user.gid, user.groups, user.home, user.shell)
        request = JobRequest(job, who, ImageReference.parse("tiny"), ())
        values: dict[str, object] = {"id": IMAGE_ID, "format": "squashfs", "size": 1, "sha256": "0" * 64}
        nodes = [NodeSlots(numbered(nid), 2) for nid in NIDS]
        return make_plan(self.site, request, Facts(**(values | facts)), Alps(self.site), nodes, keys)  # type: ignore[arg-type]

    def set_up(self, plan: NodePlan) -> None:
        for one in self.nodes.values():
            done = one.set_up(plan)
            assert done.ok, done.words

    def tear_down(self) -> list[str]:
        """The nodes' words."""
        reports = [one.tear_down() for one in self.nodes.values()]
        assert all(report.ok for report in reports), [report.words for report in reports]
        return [report.words for report in reports]

    def pictures(self) -> dict[int, NodePicture]:
        return {nid: node.picture() for nid, node in self.nodes.items()}

    def differences(self, before: dict[int, NodePicture]) -> list[str]:
        """What is not as it was, on either node."""
        now = self.pictures()
        return [line for nid, picture in before.items() for line in picture.difference(now[nid])]

    def ssh(
        self, command: str, nid: int = NIDS[0], to: int = NIDS[1], **more: PlanUser
    ) -> subprocess.CompletedProcess[str]:
        """A command on one node from inside the image on another."""
        return self.nodes[nid].inside(f"/opt/udi/bin/ssh nid{to:05d} {command}", **more)

    def sshd(self, nid: int) -> list[int]:
        """Host pids of what runs the server's program on a node."""
        found = []
        for pid in self.nodes[nid].node.processes():
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if words[0].endswith(b"/opt/udi/ssh/sshd"):
                found.append(pid)
        return found
