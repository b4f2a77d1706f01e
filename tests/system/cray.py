"""A machine of xcsim with the site's software on it, as the tests of whole jobs use it."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from lxml import etree

from tests.system import images
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
NEVER = "job never looked like that"

SITE: Tables = {
    "node": {"deadline": 3, "tmp_bytes": 16 << 20},
    "alps": {"reservation_wait": 3, "command_deadline": 5, "fanout_deadline": 4},
    "torque": {"command_deadline": 2, "prologue_deadline": 20, "epilogue_deadline": 20, "max_starts": 2},
    "jobs": {"syslog": False},
}
"""What differs from xcsim's own site: deadlines that a test can wait for, and a hold after the second start."""

RANKS = """aprun -q -n {ranks} -N 2 -b sh -c '{command}'
echo code $?
"""
LOOK = "echo rank $ALPS_APP_PE in $(cat /etc/marker 2>/dev/null || echo NO IMAGE) as $(id -u)"


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
    _token: str = field(default_factory=lambda: uuid.uuid4().hex[:12])

    def up(self, settings: Settings) -> None:
        """Bring the machine up, with alice's image tiny:1, bob's private secret:1 and everybody's tools:1."""
        self.machine.up(settings, site_changes=SITE)
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
        jobs = self._number_of_jobs()
        done = self.machine.run_as(user, ["/usr/bin/qsub", "-l", "nodes=2", *options], input=script, env=env)
        assert (done.returncode, done.stdout) == (1, ""), f"{done.returncode} {done.stdout}{done.stderr}"
        ours, *torques = done.stderr.splitlines()
        assert [line.split(":")[0] for line in torques] == ["qsub", "qsub"], done.stderr
        assert self._number_of_jobs() == jobs
        return ours

    def _number_of_jobs(self) -> int:
        return self._look().count("<Job>")

    def run(self, user: str, script: str = "", *options: str, timeout: float = 40.0, **more: Any) -> Ended:
        """A job from its submission to its end, or until it is held."""
        text = script or ranks(more.get("nodes", 2))
        return self.ended(self.qsub(user, text, *options, **more), timeout)

    def ended(self, job: str, timeout: float = 40.0) -> Ended:
        """Wait for the end of a job, or until it is held."""
        seen = self.machine.wait_job(job, "CH", timeout)
        state, starts = seen["job_state"], int(seen.get("start_count", "0"))
        return Ended(job, state, seen["exit_status"], starts, self.text(job, "o"), self.text(job, "e"), self.log(job))

    def text(self, job: str, kind: str) -> str:
        """A delivered file of the job; empty where none was delivered."""
        try:
            return self.machine.output(job, kind)
        except FileNotFoundError:
            return ""

    def log(self, job: str) -> tuple[str, ...]:
        """What the hooks logged of a job."""
        path = self.machine.path(HOOKS_LOG)
        lines = path.read_text().splitlines() if path.exists() else []
        return tuple(line for line in lines if f" job {job} " in line)

    def running(self, job: str, sign: str = "") -> None:
        """Wait until the job's script runs, and has made the file `sign` where one is named."""
        there = self.machine.path(sign or "/")
        found = wait_until(lambda: self.machine.job(job).get("substate") == "42" and there.exists(), 20, 0.05)
        assert found, f"{NEVER}: {self.machine.job(job)} {self.log(job)}"

    # -- nodes -------------------------------------------------------------------------------------------------

    def pictures(self) -> dict[int, NodePicture]:
        """A picture of each node, with the loop devices of this machine's images alone: others may use some."""
        known = set(self.ids.values())
        taken = {nid: node.snapshot() for nid, node in self.machine.nodes().items()}
        return {
            nid: dataclasses.replace(one, loops=tuple(line for line in one.loops if any(i in line for i in known)))
            for nid, one in taken.items()
        }

    def differences(self, *nids: int) -> dict[int, list[str]]:
        """What is not as it was before the first job, by node."""
        now = self.pictures()
        found = {nid: self.before[nid].difference(now[nid]) for nid in nids or now}
        return {nid: lines for nid, lines in found.items() if lines}

    def roots(self) -> list[int]:
        """Nodes where a root is published."""
        nodes = self.machine.nodes().items()
        return [nid for nid, one in nodes if any(" /var/udi " in line for line in one.snapshot().mounts)]

    def assert_clean(self, *nids: int) -> None:
        """Nodes look as before the first job, and the MOM node and the store keep nothing of any job."""
        wait_until(lambda: not self.differences(*nids), 5, 0.05)  # Cray's own checker may still be at work there
        assert self.differences(*nids) == {}
        assert self.plans() == []

    def plans(self) -> list[str]:
        folder = self.machine.path("/scratch/udi/plans")
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []

    def states(self) -> list[str]:
        """Jobs that the MOM node keeps a state of."""
        folder = self.machine.path(f"{STATE}/jobs")
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []

    def statuses(self) -> dict[int, str]:
        return self.machine.node_states()

    def on_node(self, nid: int, command: str) -> str:
        """A shell line on one node by xtxqtcmd, as an operator would; its output."""
        self.machine.path("/root/nodes").write_text(f"nid{nid:05d}\n")
        return self.machine.run_as("root", [XTXQTCMD, "/root/nodes", command], check=True).stdout

    def reset(self) -> None:
        """Whatever a test left: faults, jobs, nodes out of service."""
        self.machine.clear_faults()
        for job in etree.fromstring(self._look().encode()).iter("Job"):
            if job.findtext("job_state") != "C":
                name = job.findtext("Job_Id", "")
                self.machine.run_as("root", ["qdel", name])
                self.machine.wait_job(name)
        dirty = [nid for nid, state in self.statuses().items() if state != "up"]
        if dirty:
            listed = ",".join(map(str, dirty))
            self.machine.run_as("root", ["/opt/udi/bin/udi-admin", "recover", listed])
            self.machine.run_as("root", ["xtprocadmin", "-k", "s", "up", "-n", listed], check=True)

    def _look(self) -> str:
        return self.machine.run_as("root", ["/opt/xcsim/bin/look", "-x"]).stdout or "<Data/>"


def home_of(user: str) -> str:
    return f"/home/{user}"


def ranks(nodes: int = 2, command: str = LOOK) -> str:
    """A script of one aprun with two ranks a node, and its exit status."""
    return RANKS.format(ranks=2 * nodes, command=command)


def expected(marker: str, uid: int, nodes: int = 2) -> list[str]:
    """What `ranks` prints where all is well, sorted."""
    return sorted(["code 0", *(f"rank {rank} in {marker} as {uid}" for rank in range(2 * nodes))])
