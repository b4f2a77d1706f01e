"""One compute node of xcsim, an image store, and the node software as a site would start it there."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import udi_run
from udi import nodecommand, nodezip
from udi.config import SiteConfig, parse
from udiroot.plan import NodePlan, NodeRun, PlanFile, PlanMount, PlanUser
from udiroot.report import NodeReport
from xcsim.initramfs import NodeMount
from xcsim.node import ComputeNode, NodeFiles
from xcsim.picture import NodePicture

ALICE = PlanUser("alice", 1001, 1001, (1001, 2001), "/home/alice", "/bin/sh")
BOB = PlanUser("bob", 1002, 1002, (1002,), "/home/bob", "/bin/sh")
STORE_UID = 990
NID = 1000 + os.getpid() % 60000
"""One of its own for each run of the tests: they share the machine's loop devices, whose names contain it."""
IMAGE_ID = "ab" * 32
IDENTITY_FILE = "/etc/xcsim/nid"
SITE = """
[store]
path = "/lus/udi"
[node]
zip = "/lus/software/udi.zip"
deadline = 20
"""


def make_tree(directory: Path) -> None:
    """A tiny image: busybox, the directories that every distribution has, a few links and accounts."""
    for name in (
        "bin",
        "etc/app",
        "usr/lib",
        "var/lib/app",
        "opt/app",
        "home",
        "proc",
        "sys",
        "dev",
        "tmp",
        "data",
        "analysis",
    ):
        (directory / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", directory / "bin/busybox")
    for applet in ("sh", "cat", "ls", "sleep", "id", "mount", "touch", "grep", "mkdir", "tail", "sed"):
        (directory / "bin" / applet).symlink_to("busybox")
    (directory / "lib").symlink_to("usr/lib")
    (directory / "etc/os-release").write_text("NAME=tiny\n")
    (directory / "etc/app/conf").write_text("x=1\n")
    (directory / "etc/passwd").write_text(
        "root:x:0:0::/root:/bin/sh\ndaemon:!:1:1::/:/bin/false\nmallory:x:1001:0::/:/bin/sh\n"
    )
    (directory / "etc/group").write_text("root:x:0:\ndaemon:x:1:\n")
    (directory / "etc/resolv.conf").symlink_to("/run/systemd/resolve/stub.conf")
    (directory / "var/run").symlink_to("/run")
    (directory / "run").mkdir()
    (directory / "entry").write_text("#!/bin/sh\necho entered\n")
    (directory / "entry").chmod(0o755)


@dataclass
class Rig:
    """A node with everything that set-up needs; `directory` is the host's side of its file systems."""

    directory: Path
    nid: int = NID
    node: ComputeNode = field(init=False)
    site: SiteConfig = field(init=False)
    image: Path = field(init=False)

    def __post_init__(self) -> None:
        for name in ("store/images", "store/plans", "software", "scratch/alice", "scratch2", "projects", "home"):
            (self.directory / name).mkdir(parents=True)
        self.directory.chmod(0o755)
        os.chown(self.directory / "scratch/alice", ALICE.uid, ALICE.gid)
        self.site = parse(SITE, "udi.toml")
        nodezip.build(self.site, str(self.directory / "software/udi.zip"), {"udi-run": udi_run.program()})
        make_tree(self.directory / "tree")
        self.image = self.make_image("squashfs")
        mounts = [("store", "/lus/udi"), ("software", "/lus/software")]
        mounts += [(name, f"/{name}") for name in ("scratch", "scratch2", "projects", "home")]
        files = NodeFiles(
            state=self.directory / "nodes",
            mounts=tuple(NodeMount(str(self.directory / name), target) for name, target in mounts),
        )
        self.node = ComputeNode(self.nid, files).start()

    def close(self) -> None:
        """Stop the node, on which no test may have left a loop device: its end would take that with it unseen."""
        bound = self.picture().loops
        self.node.stop()
        assert bound == ()

    def make_image(self, kind: str, name: str = IMAGE_ID, tree: Path | None = None) -> Path:
        """An image file of the store, owned by its account and not writable. One of a `tree` is not compressed: a test
        looks at what it adds, and the image that all tests share is."""
        path = self.directory / f"store/images/{name}.{kind}"
        source = tree or self.directory / "tree"
        if kind == "directory":
            shutil.copytree(source, path, symlinks=True)
            subprocess.run(["chown", "-R", str(STORE_UID), path], check=True)
            return path
        if kind == "squashfs":
            plain = ["-noI", "-noD", "-noF", "-noX"] if tree else []
            subprocess.run(
                ["mksquashfs", source, path, "-noappend", "-quiet", "-no-progress", *plain],
                check=True,
                capture_output=True,
            )
        else:
            with path.open("wb") as stream:
                stream.truncate(16 << 20)
            subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", source, path], check=True, capture_output=True)
        os.chown(path, STORE_UID, STORE_UID)
        path.chmod(0o444)
        return path

    def plan(self, job: str = "123.sdb", user: PlanUser = ALICE, **changes: Any) -> NodePlan:
        """A plan with two site file systems, one volume and the usual files; `changes` replace parts."""
        values: dict[str, Any] = {
            "job": job,
            "user": user,
            "store_uid": STORE_UID,
            "store_gid": STORE_UID,
            "root": self.site.node.root,
            "run": self.site.node.run,
            "image_format": "squashfs",
            "image_path": f"/lus/udi/images/{IMAGE_ID}.squashfs",
            "image_id": IMAGE_ID,
            "tmp_bytes": 16 << 20,
            "deadline": 20,
            "sites": (PlanMount("/scratch", "/scratch", False), PlanMount("/projects", "/projects", True)),
            "allowed": ("/scratch",),
            "volumes": (PlanMount("/scratch/alice", "/output", False),),
            "etc": (
                PlanFile(
                    "passwd", 0o644, f"root:x:0:0::/root:/bin/sh\n{user.name}:x:{user.uid}:{user.gid}::/home:/bin/sh\n"
                ),
                PlanFile("group", 0o644, f"root:x:0:\n{user.name}:x:{user.gid}:\n"),
                PlanFile("resolv.conf", 0o644, "nameserver 192.0.2.1\n"),
            ),
            "files": (PlanFile("/opt/udi/etc/run", 0o444, "udi-run 1\0workdir /\0set PATH=/bin\0end\0"),),
            "programs": ("/opt/udi/bin/udi-run",),
            "nodes": (NodeRun(2, ("12", "13"), ("nid00012", "nid00013")), NodeRun(1, ("100020",), ("nid100020",))),
        }
        return NodePlan(**(values | changes))

    def send(self, plan: NodePlan | str) -> tuple[str, str]:
        """Put a plan into the store; its path on the node, and its sha256."""
        text = plan if isinstance(plan, str) else plan.text()
        path = self.directory / f"store/plans/{secrets.token_hex(8)}"
        path.write_text(text)
        path.chmod(0o400)
        os.chown(path, STORE_UID, STORE_UID)
        return f"/lus/udi/plans/{path.name}", hashlib.sha256(text.encode()).hexdigest()

    def set_up(self, plan: NodePlan | str) -> NodeReport:
        path, sha256 = self.send(plan)
        nonce = secrets.token_hex(16)
        return self.answer(nodecommand.setup_command(self.site, IDENTITY_FILE, path, sha256, nonce), nonce)

    def tear_down(self, job: str = "123.sdb") -> NodeReport:
        nonce = secrets.token_hex(16)
        return self.answer(nodecommand.teardown_command(self.site, IDENTITY_FILE, job, nonce), nonce)

    def check(self) -> tuple[int, str]:
        """Exit code and line of the health check."""
        done = self.node.run(["/bin/sh", "-c", nodecommand.check_command(self.site, IDENTITY_FILE)])
        return done.returncode, done.stdout.strip() + done.stderr

    def report(self) -> NodeReport:
        """The report of the health check to a fan-out."""
        nonce = secrets.token_hex(16)
        return self.answer(nodecommand.check_command(self.site, IDENTITY_FILE, nonce), nonce)

    def answer(self, command: str, nonce: str) -> NodeReport:
        """Run a command line on the node as xtxqtcmd does, in a shell of the initramfs, and read the report."""
        done = self.node.run(["/bin/sh", "-c", command])
        reports = [report for line in done.stdout.splitlines() if (report := NodeReport.parse(line, nonce))]
        assert len(reports) == 1, f"{done.stdout}\n{done.stderr}"
        assert reports[0].code == done.returncode
        if "Traceback" in done.stdout + done.stderr:
            raise AssertionError(done.stdout + done.stderr)
        return reports[0]

    def inside(self, script: str, user: PlanUser = ALICE) -> subprocess.CompletedProcess[str]:
        """Run a shell script in the root as the job's user, as aprun does."""
        return self.node.run(
            ["/bin/sh", "-c", script], uid=user.uid, gid=user.gid, groups=user.groups, root=self.site.node.root
        )

    def picture(self) -> NodePicture:
        return self.node.snapshot()
