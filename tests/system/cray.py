"""A machine of xcsim with the site's software on it, as the tests of whole jobs use it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from lxml import etree

from tests.system import images
from tests.system.scripts import ranks
from udi import nodecommand
from udi.config import SiteConfig, load
from xcsim.initramfs import NID_FILE
from xcsim.job import RUNNING
from xcsim.machine import Machine
from xcsim.picture import NodePicture
from xcsim.processes import wait_until
from xcsim.settings import Settings
from xcsim.site import Tables

MOM_PRIV = "/var/spool/torque/mom_priv"
TORQUE_CFG = "/var/spool/torque/torque.cfg"
HOOKS_LOG = "/var/log/udi/hooks.log"
NHC_LOG = "/var/log/xtcheckhealth_log"
XTXQTCMD = "/opt/cray/nodehealth/default/bin/xtxqtcmd"
STATE = "/var/spool/udi"
KINDS = ("Output", "Error")
A, B, C, D = NIDS = tuple(range(first := 100 + 4 * (os.getpid() % 5000), first + 4))
"""Our nodes. Loop devices are the whole host's, so machines that run at the same time must not share their nids."""
_NONCE = "0123456789abcdef"

SITE: Tables = {
    "node": {"deadline": 3, "tmp_bytes": 16 << 20},
    "alps": {"reservation_wait": 3, "command_deadline": 5, "fanout_deadline": 4},
    "torque": {
        "command_deadline": 2,
        "prologue_deadline": 20,
        "epilogue_deadline": 20,
        "max_starts": 2,
        "requeue_pause": 0,
    },
    "jobs": {"syslog": False},
}
"""What differs from xcsim's own site: deadlines that a test can wait for, and a hold after the second start."""


def merged(*tables: Tables) -> dict[str, dict[str, object]]:
    """Settings by table, later ones before earlier ones."""
    names = dict.fromkeys(name for one in tables for name in one)
    return {name: {key: value for one in tables for key, value in one.get(name, {}).items()} for name in names}


@dataclass(frozen=True)
class Ended:
    """A job that has ended, or that Torque holds."""

    id: str
    state: str
    status: str
    starts: int
    output: str
    error: str
    log: tuple[str, ...]

    @property
    def codes(self) -> list[int]:
        """The exit codes of its failed prologues."""
        return [int(found[1]) for line in self.log if (found := re.search(r"start failed, exit code (\d+)", line))]


@dataclass
class Cray:
    """One machine, its images, and how its nodes looked before the first job."""

    machine: Machine
    ids: dict[str, str] = field(default_factory=dict)
    before: dict[int, NodePicture] = field(default_factory=dict)
    _text_kept: bytes = field(default=b"", repr=False)
    _jobs: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)
    _token: str = field(default_factory=lambda: uuid.uuid4().hex[:12])

    def up(self, torque_version: str = "6.1") -> None:
        """Bring a machine of four nodes up, with alice's tiny:1, bob's private secret:1 and everybody's tools:1."""
        quick = Settings(first_nid=A, torque_version=torque_version, schedule_delay=0.05, release_delay=0.05)
        self.machine.up(quick, site_changes=SITE)
        self.pull("alice", "tiny:1")
        self.pull("bob", "secret:1")
        self.pull("root", "tools:1", "--public")
        self.before = self.pictures()

    # -- images and configuration ------------------------------------------------------------------------------

    def marker(self, reference: str) -> str:
        """What the image says of itself, different on every machine."""
        return f"{reference}-{self._token}"

    def pull(self, user: str, reference: str, *options: str, content: str = "") -> str:
        """A tiny image, made and pulled by that user; `content` is of another reference where given. Its id."""
        home = self.machine.path("/home/" + user if user != "root" else "/root")
        owner = home.stat()
        layers = images.tiny(self.marker(content or reference))
        image_id = images.save(home / "image.tar", layers, reference, (owner.st_uid, owner.st_gid))
        self.ids[content or reference] = image_id
        self.udi(user, "pull", f"docker-archive:{'/root' if user == 'root' else home_of(user)}/image.tar", *options)
        return image_id

    def udi(self, user: str, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = self.machine.run_as(user, ["/opt/udi/bin/udi", *words])
        assert done.returncode == code, f"udi {words}: {done.returncode} {done.stdout}{done.stderr}"
        return done

    def admin(self, *words: str, code: int = 0) -> str:
        """`udi-admin`: what it said."""
        done = self.machine.run_as("root", ["/opt/udi/bin/udi-admin", *words])
        assert done.returncode == code, f"udi-admin {words}: {done.returncode} {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    @contextmanager
    def configured(self, changes: Tables) -> Iterator[None]:
        """The site's configuration with these changes, for a while."""
        self.machine.configure_site(merged(SITE, changes))
        try:
            yield
        finally:
            self.machine.configure_site(SITE)

    @contextmanager
    def without_filter(self) -> Iterator[None]:
        """Jobs go past the submit filter, as with a qsub of another machine."""
        path = self.machine.path(TORQUE_CFG)
        text = path.read_text()
        path.write_text("")
        try:
            yield
        finally:
            path.write_text(text)

    # -- jobs --------------------------------------------------------------------------------------------------

    def qsub(self, user: str, script: str, *options: str, image: str = "tiny:1", nodes: int = 2, more: str = "") -> str:
        """Submit a job for an image; its id. `more` follows in the list of variables."""
        listed = ["-v", ",".join(part for part in (f"UDI={image}" if image else "", more) if part)]
        words = [*(listed if listed[1] else []), "-l", f"nodes={nodes}:ppn=2", *options]
        return self.machine.qsub(user, words, f"#!/bin/bash\n{script}")

    def refused(self, user: str, *options: str, script: str = "true\n", env: Mapping[str, str] | None = None) -> str:
        """What qsub tells the user of a job that it does not take, Torque's own two lines left out."""
        jobs = len(self._kept())
        done = self.machine.run_as(user, ["/usr/bin/qsub", "-l", "nodes=2", *options], input=script, env=env)
        assert (done.returncode, done.stdout) == (1, ""), f"{done.returncode} {done.stdout}{done.stderr}"
        ours, *torques = done.stderr.splitlines()
        assert [line.split(":")[0] for line in torques] == ["qsub", "qsub"], done.stderr
        assert len(self._kept()) == jobs
        return ours

    def run(self, user: str, script: str = "", *options: str, **more: Any) -> Ended:
        """A job from its submission to its end, or until it is held."""
        text = script or ranks(more.get("nodes", 2))
        return self.ended(self.qsub(user, text, *options, **more))

    def ended(self, job: str, states: str = "CH", timeout: float = 60.0) -> Ended:
        """Wait for the end of a job, or until it is held."""
        seen = wait_until(lambda: self._saved(job)["state"] in states, timeout, 0.02)
        told = self.machine.job(job)
        assert seen, f"{told} {self.log(job)}"
        starts, texts = int(told.get("start_count", "0")), [self._read(told[f"{kind}_Path"]) for kind in KINDS]
        return Ended(job, told["job_state"], told["exit_status"], starts, texts[0], texts[1], self.log(job))

    def _saved(self, job: str) -> dict[str, Any]:
        return self._kept()[job]

    def _kept(self) -> dict[str, dict[str, Any]]:
        """What Torque's server keeps of all jobs: asking it by a command all the time would cost the jobs their time,
        and so would reading what has not changed."""
        path = self.machine.state / "torque.json"
        text = path.read_bytes() if path.exists() else b'{"jobs": []}'
        if text != self._text_kept:
            self._text_kept = text
            self._jobs = {f"{one['number']}{_task(one)}.{one['server']}": one for one in json.loads(text)["jobs"]}
        return self._jobs

    def tasks(self, job: str) -> list[str]:
        """The ids of an array's tasks; of any other job its own."""
        done = self.machine.run_as("root", ["/opt/xcsim/bin/look", "-x", "-t", job], check=True)
        return [one.findtext("Job_Id", "") for one in etree.fromstring(done.stdout.encode()).iter("Job")]

    def text(self, job: str, kind: str) -> str:
        """A delivered file of the job, `Output` or `Error`; empty where none was delivered."""
        return self._read(self.machine.job(job)[f"{kind}_Path"])

    def _read(self, place: str) -> str:
        path = self.machine.path(place.partition(":")[2])
        return path.read_text(errors="replace") if path.exists() else ""

    def log(self, job: str) -> tuple[str, ...]:
        """What the hooks logged of a job."""
        path = self.machine.path(HOOKS_LOG)
        lines = path.read_text().splitlines() if path.exists() else []
        return tuple(line for line in lines if f" job {job} " in line)

    def running(self, job: str, sign: str = "") -> None:
        """Wait until the job's script runs, and has made the file `sign` where one is named."""
        there = self.machine.path(sign or "/")
        found = wait_until(lambda: self._saved(job)["substate"] == RUNNING and there.exists(), 30, 0.02)
        assert found, f"{self.machine.job(job)} {self.log(job)}"

    # -- nodes -------------------------------------------------------------------------------------------------

    def pictures(self) -> dict[int, NodePicture]:
        """A picture of each node."""
        return {nid: self.picture(nid) for nid in self.machine.settings.nids}

    def picture(self, nid: int) -> NodePicture:
        return self.machine.node(nid).snapshot()

    def differences(self, *nids: int) -> dict[int, list[str]]:
        """What is not as it was before the first job, by node."""
        now = self.pictures()
        found = {nid: self.before[nid].difference(now[nid]) for nid in nids or now}
        return {nid: lines for nid, lines in found.items() if lines}

    def roots(self) -> list[int]:
        """Nodes where a root is published."""
        return [nid for nid, one in self.pictures().items() if any(" /var/udi " in line for line in one.mounts)]

    def assert_clean(self, *nids: int) -> None:
        """Nodes look as before the first job, and the MOM node and the store keep nothing of any job."""
        found: dict[int, list[str]] = {}

        def gone() -> bool:
            """Cray's own checker may still be at work there, or begin at any moment."""
            found.clear()
            found.update(self.differences(*nids))
            return not found

        wait_until(gone, 30, 0.05)
        assert found == {}
        assert self.plans() == []

    def plans(self) -> list[str]:
        directory = self.machine.path("/scratch/udi/plans")
        return sorted(path.name for path in directory.iterdir()) if directory.exists() else []

    def states(self) -> list[str]:
        """Jobs that the MOM node keeps a state of."""
        directory = self.machine.path(f"{STATE}/jobs")
        return sorted(path.name for path in directory.iterdir()) if directory.exists() else []

    def statuses(self) -> dict[int, str]:
        return self.machine.node_states()

    def on_node(self, nid: int, command: str) -> str:
        """A shell line on one node by xtxqtcmd, as an operator would; its output."""
        self.machine.path("/root/nodes").write_text(f"nid{nid:05d}\n")
        return self.machine.run_as("root", [XTXQTCMD, "/root/nodes", command], check=True).stdout

    def assert_mounts_gone(self, *nids: int) -> None:
        """The nodes have the mounts, processes and files that they had before the first job."""
        for nid in nids:
            lines = self.before[nid].difference(self.picture(nid))
            assert [line for line in lines if " loops: " not in line] == []

    def tear_down(self, nid: int, job: str) -> str:
        """Teardown of a job on one node, sent by hand; what the node says."""
        return self.on_node(nid, nodecommand.teardown_command(self.site(), NID_FILE, job, _NONCE))

    def set_up(self, nid: int, plan: str) -> str:
        """Set-up of a plan on one node, sent by hand; what the node says."""
        path = self.machine.path("/scratch/udi/plans/by-hand")
        path.write_text(plan)
        path.chmod(0o400)
        os.chown(path, 990, 990)
        sha256 = hashlib.sha256(plan.encode()).hexdigest()
        try:
            return self.on_node(
                nid, nodecommand.setup_command(self.site(), NID_FILE, f"/lus/udi/plans/{path.name}", sha256, _NONCE)
            )
        finally:
            path.unlink()

    def site(self) -> SiteConfig:
        return load(str(self.machine.path("/etc/udi/udi.toml")))

    def reset(self) -> None:
        """Whatever a test left: faults, jobs, nodes out of service."""
        faults = self.machine.state / "faults.json"
        if faults.exists() and faults.read_text() != "[]":
            self.machine.clear_faults()
        for name, job in self._kept().items():
            if job["state"] != "C":
                self.machine.run_as("root", ["qdel", name])
                self.machine.wait_job(name)
        for record in self.machine.path(STATE).glob("tries/*.json"):
            record.unlink()
        recorded = {record.stem for record in self.machine.path(STATE).glob("nodes/*.json")}
        dirty = [nid for nid, state in self.statuses().items() if state != "up" or f"nid{nid:05d}" in recorded]
        if dirty:
            listed = ",".join(map(str, dirty))
            self.machine.run_as("root", ["/opt/udi/bin/udi-admin", "recover", listed])
            for nid in set(dirty) & set(self.roots()):  # a test that failed must not fail the next one
                found = re.search(r" udi:([^:]+):", " ".join(self.picture(nid).mounts))
                self.tear_down(nid, found[1] if found else "0")
            self.machine.run_as("root", ["xtprocadmin", "-k", "s", "up", "-n", listed], check=True)


def _task(job: Mapping[str, Any]) -> str:
    return "" if job["task"] is None else f"[{job['task']}]"


def home_of(user: str) -> str:
    return f"/home/{user}"
