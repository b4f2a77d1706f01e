"""A real Slurm of slurmsim, soaked: kills of every daemon, and what must hold of its nodes when all is quiet."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from slurmsim import site
from slurmsim.cluster import LOGIN, Cluster
from tests.conversions import conversions
from tests.slurm.cluster import Slurm
from tests.soak.actors import Act, Role
from tests.soak.jobs import BEGAN, ENDED, Expected, look
from tests.soak.leftovers import Census
from tests.soak.machine import GATEWAY_STATE, KEPT, STORE, UIDS, Soaked, without_traceback
from tests.soak.wishes import Wish
from tests.system.cray import merged
from udiroot.errors import SetupFailed
from xcsim.loops import NodeLoop, of_node
from xcsim.processes import members, namespace_of, wait_until
from xcsim.registry import PROGRAM

_LOGIN_STATES = ("/run", "/tmp", "/var/tmp", "/scratch", "/home", "/var/lib/udi-gateway", "/var/spool/udi")
_NODE_STATES = ("/run", "/tmp", "/var/tmp", "/var/udi", "/var/spool/udi", "/dev/shm")
_EXPECTED = (
    rf"/run/(udi-gateway|munge|lock|slurm.*)(/.*)?|{STORE}|/scratch/[a-z]+/slurm-\d+\.out|{GATEWAY_STATE}"
    r"|/(run|var/spool)/udi(-slurm)?(/lock)?|/var/spool/udi/(reports|jobs|nodes|tries)"
)
"""What stays on a host: images, what the gateway keeps, what jobs printed, and directories of our own."""
_REGISTRY, _REGISTRY_STATE = "127.0.0.1:5000", "/var/lib/soak-registry"
"""In the login host's own network, so that the port is free."""


class SoakedSlurm(Soaked):
    """One cluster of two nodes."""

    name = "slurm"
    all_nodes = 2
    most_nodes = 2
    most_jobs = 8

    def __init__(self) -> None:
        self._directory = tempfile.mkdtemp(prefix="soak-slurm-")
        self._slurm = Slurm(Cluster(Path(self._directory)))
        self._cluster = self._slurm.cluster
        self._registry: subprocess.Popen[str] | None = None

    def up(self) -> None:
        registry = {"default": _REGISTRY, "hosts": [{"name": _REGISTRY, "plain_http": True}]}
        self._slurm.up(tables=merged(KEPT, {"gateway": {"address": f"{LOGIN}:4080"}, "registry": registry}))
        self._start_registry()

    def down(self) -> None:
        self._cluster.stop()
        if self._registry:
            self._registry.wait(30)
        shutil.rmtree(self._directory)

    @property
    def scratch(self) -> Path:
        return self._cluster.directory / "scratch"

    def marker(self, name: str) -> str:
        return self._slurm.marker(name)

    # -- users --------------------------------------------------------------------------------------------------

    def run(self, user: str, *words: str, input: str = "") -> subprocess.CompletedProcess[str]:
        return self._on(LOGIN, user, *words, input=input)

    def run_elsewhere(self, user: str, *words: str) -> subprocess.CompletedProcess[str]:
        return self._on(self._cluster.names[0], user, *words)

    def _on(self, host: str, user: str, *words: str, input: str = "") -> subprocess.CompletedProcess[str]:
        if user == "root":
            return self._cluster.root(host, *words, check=False, input=input)
        cwd = f"/scratch/{user}" if user in UIDS else "/"
        return self._cluster.run_as(user, *words, cwd=cwd, host=host, input=input)

    def submission(self, one: Wish, volumes: Sequence[str], dice: random.Random) -> tuple[list[str], str, int]:
        task = look(one.volumes)
        steps = dice.choice(["", f"srun sh -c '{task}'\n{ENDED}", f"srun --overlap sh -c '{task}' & wait $!\n{ENDED}"])
        script = f"#!/bin/sh\n{task}\necho {BEGAN}\n{steps}\n{one.work}\n"
        words = ["sbatch", "--parsable", f"--image={one.image}", f"--nodes={one.nodes}"]
        return [*words, *(f"--volume={text}" for text in volumes)], script, one.nodes

    def over(self, jobs: Iterable[Expected]) -> list[Expected]:
        listed = self._cluster.root(LOGIN, "squeue", "--noheader", "--format=%A", check=False)
        there = set(listed.stdout.split())
        return [] if listed.returncode else [job for job in jobs if job.job not in there]

    def printed(self, job: Expected) -> str:
        return self._slurm.output(job.user, job.job)

    def cancel(self, job: str) -> None:
        self._cluster.root(LOGIN, "scancel", job, check=False)

    # -- what goes wrong ----------------------------------------------------------------------------------------

    def roles(self) -> list[Role]:
        return [Role("daemons", [self._kill_slurmd, self._kill_controller], pause=40.0)]

    def kills(self) -> list[Act]:
        return [self._kill_hook, self._kill_user, self._kill_step]

    def _node(self, dice: random.Random) -> str:
        return dice.choice(self._cluster.names)

    def _kill_hook(self, dice: random.Random) -> None:
        self._cluster.root(self._node(dice), "pkill", "-KILL", "-f", "admin.entry.slurm", check=False)

    def _kill_user(self, dice: random.Random) -> None:
        user = str(dice.choice(list(UIDS.values())))
        self._cluster.root(self._node(dice), "pkill", "-KILL", "-u", user, check=False)

    def _kill_step(self, dice: random.Random) -> None:
        self._cluster.root(self._node(dice), "pkill", "-KILL", "-f", "^slurmstepd", check=False)

    def _kill_slurmd(self, dice: random.Random) -> None:
        node = self._node(dice)
        self._cluster.kill(node, "slurmd", dice.choice(("KILL", "TERM")))
        time.sleep(dice.uniform(0.1, 3))
        self._cluster.start_slurmd(node)

    def _kill_controller(self, dice: random.Random) -> None:
        self._cluster.stop_controller(dice.choice(("KILL", "TERM")))
        time.sleep(dice.uniform(0.1, 3))
        self._cluster.start_controller()

    def kill_munged(self, dice: random.Random, how: str) -> Callable[[], None]:
        host = dice.choice((LOGIN, *self._cluster.names))
        self._cluster.kill(host, "munged", how)
        return partial(self._cluster.start_munge, host)

    def gateway(self, *, serving: bool) -> list[int]:
        return self._pids(LOGIN, "-u", "udi", "-f", "udi-gateway.*serve" if serving else "udi-gateway")

    def conversions(self) -> list[int]:
        return list(conversions(members("pid", namespace_of(self._cluster.host(LOGIN).pid, "pid"))))

    def push(self, archive: Path, name: str) -> None:
        words = ("copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false")
        source, target = f"docker-archive:/scratch/{archive.name}", f"docker://{_REGISTRY}/{name}"
        self._cluster.root(LOGIN, "skopeo", *words, source, target)

    def _start_registry(self) -> None:
        """Debian's, on the login host."""
        self._cluster.root(LOGIN, "install", "-d", "-o", "udi", _REGISTRY_STATE)
        configuration = {
            "version": 0.1,
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": f"{_REGISTRY_STATE}/data"}},
            "http": {"addr": _REGISTRY},
        }
        path = f"{_REGISTRY_STATE}/config.yml"
        self._cluster.host(LOGIN).path(path).write_text(json.dumps(configuration))  # JSON is YAML
        words = (PROGRAM, "serve", path)
        self._registry = self._cluster.popen_as("udi", *words, cwd="/", stderr=subprocess.DEVNULL)
        listens = ("bash", "-c", f"exec 3<>/dev/tcp/{_REGISTRY.replace(':', '/')}")
        assert wait_until(lambda: self._cluster.root(LOGIN, *listens, check=False).returncode == 0, 30, 0.1)

    def start_gateway(self) -> None:
        site.start_gateway(self._cluster)

    def calm(self) -> None:
        self._slurm.cancel()

    # -- the operator -------------------------------------------------------------------------------------------

    def look_after(self, _: random.Random) -> None:
        """Each node that is drained or down is brought back by `udi-admin recover` on it."""
        for node, state in self._states().items():
            if "drain" in state or "down" in state:
                self._recover(node)
        listed = self._cluster.root(LOGIN, "squeue", "--noheader", "--format=%A %r", check=False)
        for line in listed.stdout.splitlines():
            job, why = line.split(" ", 1)
            if "held" in why.lower():
                self._cluster.root(LOGIN, "scontrol", "release", job, check=False)

    def _recover(self, node: str) -> str:
        done = without_traceback(self._cluster.root(node, "/opt/udi/bin/udi-admin", "recover", node, check=False))
        return done.stdout + done.stderr

    def _states(self) -> dict[str, str]:
        try:
            return self._cluster.states()
        except (SetupFailed, subprocess.SubprocessError):
            return {}  # the controller is away

    # -- quiet --------------------------------------------------------------------------------------------------

    def unnamed(self) -> list[str]:
        """Nodes that have something of a job, and that not even the next run of HealthCheckProgram drains."""
        found = []
        for node in self._cluster.names:
            if self._slurm.left(node) and not self._is_named(node):
                words = ("env", f"SLURMD_NODENAME={node}", "/opt/udi/bin/udi-slurm-health")
                self._cluster.root(node, *words, check=False, timeout=60)
                if (left := self._slurm.left(node)) and not self._is_named(node):
                    found.append(f"node {node} is dirty, and in service: {left}")
        return found

    def _is_named(self, node: str) -> bool:
        state = self._states().get(node, "")
        return "drain" in state or "down" in state

    def cleaned(self) -> list[str]:
        self.look_after(random.Random(0))
        return [line for line in map(self._look_at, self._cluster.names) if line]

    def _look_at(self, node: str) -> str:
        """What is wrong with a node that should be as before."""
        if wait_until(lambda: self._states().get(node) == "idle" and not self._slurm.left(node), 60, 0.5):
            return ""
        return f"node {node} is {self._states().get(node)}, with {self._slurm.left(node)}: {self._recover(node)}"

    def censuses(self) -> dict[str, Census]:
        hosts = {LOGIN: _LOGIN_STATES} | dict.fromkeys(self._cluster.names, _NODE_STATES)
        return {name: Census(self._cluster.host(name).path("/"), tops, _EXPECTED) for name, tops in hosts.items()}

    def daemons(self) -> dict[str, list[int]]:
        slurmds = [pid for node in self._cluster.names for pid in self._pids(node, "-x", "slurmd")]
        return {"slurmctld": self._pids(LOGIN, "-x", "slurmctld"), "slurmd": slurmds}

    def _pids(self, host: str, *words: str) -> list[int]:
        """The processes of a host by the words of pgrep, by the numbers that they have on this machine."""
        inside = set(self._cluster.root(host, "pgrep", *words, check=False).stdout.split())
        found = []
        for pid in members("pid", namespace_of(self._cluster.host(host).pid, "pid")):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                numbers = Path(f"/proc/{pid}/status").read_text().partition("NSpid:")[2].splitlines()[0].split()
                if numbers[-1] in inside:
                    found.append(pid)
        return found

    def loops(self) -> list[NodeLoop]:
        return [one for host in self._cluster.hosts() for one in of_node(host.pid)]

    def logs(self) -> list[Path]:
        slurmd = [self._cluster.host(node).path("/var/log/slurmd.log") for node in self._cluster.names]
        return [self._cluster.directory / "gateway.log", *slurmd]

    def evidence(self) -> dict[str, Path]:
        hosts = {host.name: host for host in self._cluster.hosts()}
        kept = {f"{name}-log": host.path("/var/log") for name, host in hosts.items()}
        kept |= {f"{name}-munge.log": host.path("/run/munge/log") for name, host in hosts.items()}
        return {"gateway.log": self._cluster.directory / "gateway.log"} | kept
