"""A real Slurm of slurmsim, soaked: users, kills of every daemon, and what must hold when all is quiet."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from slurmsim import site
from slurmsim.cluster import LOGIN, Cluster
from tests.slurm.cluster import ALICE, BOB, Slurm
from tests.soak import stores
from tests.soak.actors import Act, Actor, play
from tests.soak.jobs import BEGAN, ENDED, NOT_PINNED, Expected, Submitted, Tag, always, look
from tests.soak.leftovers import Census, keep_evidence
from tests.soak.memory import Memory
from tests.soak.wishes import FILE_TEXT, wish
from tests.system import images
from udiroot.errors import SetupFailed
from xcsim.processes import children, members, namespace_of, wait_until

_UIDS = {"alice": ALICE, "bob": BOB}
_IMAGES = {
    "alice": ("tiny:1", "tools:1", "moving:1", "shared:1"),
    "bob": ("secret:1", "tools:1", "shared:1", "short:1", "short:2"),
}
_QUIET_SECONDS = 120.0
_LOGIN_STATES = ("/run", "/tmp", "/var/tmp", "/scratch", "/home", "/var/lib/udi-gateway", "/var/spool/udi")
_NODE_STATES = ("/run", "/tmp", "/var/tmp", "/var/udi", "/var/spool/udi", "/dev/shm")
_EXPECTED = (
    r"/run/(udi-gateway|munge|lock|slurm.*)(/.*)?|/scratch/udi/(images|refs)/.*|/scratch/[a-z]+/slurm-\d+\.out|/scratch/[a-z0-9-]*\.tar"
    r"|/var/lib/udi-gateway/((locks|turns|layers)(/.*)?|history\.sqlite.*)|/(run|var/spool)/udi(-slurm)?(/lock)?"
    r"|/var/spool/udi/(reports|jobs|nodes|tries)"
)
"""What stays on a host: images, what the gateway keeps, what jobs printed, and directories of our own."""
_ROUGH_ROUNDS = 4
"""One round of so many kills the gateway; in between it lives long enough for its memory to be measured."""


class SlurmSoak:
    """One cluster of two nodes for the whole run."""

    def __init__(self, seed: str, say: Callable[[str], None], ease: float) -> None:
        self._seed = seed
        self._say = say
        self._ease = ease
        self._directory = tempfile.mkdtemp(prefix="soak-slurm-")
        self._slurm = Slurm(Cluster(Path(self._directory)))
        self._cluster = self._slurm.cluster
        self._submitted = Submitted()
        self._memory = Memory()
        self._tags = {name: Tag(self._slurm.marker(name)) for name in ("moving:1", "shared:1", "short:1", "short:2")}

    def __enter__(self) -> SlurmSoak:
        self._slurm.up(tables={"gateway": {"keep_bytes": 30 << 20}})
        for user, uid in _UIDS.items():
            path = self._slurm.scratch(user) / "input"
            path.write_text(f"{FILE_TEXT}\n")
            os.chown(path, uid, uid)
        self._move(random.Random(0))
        self._publish(random.Random(0))
        hosts = {LOGIN: _LOGIN_STATES} | dict.fromkeys(self._cluster.names, _NODE_STATES)
        self._censuses = {
            name: Census(self._cluster.host(name).path("/"), tops, _EXPECTED) for name, tops in hosts.items()
        }
        return self

    def __exit__(self, *_: object) -> None:
        self._cluster.stop()
        shutil.rmtree(self._directory)

    def round(self, number: int, seconds: float) -> list[str]:
        """Let all act for so long, then quiet; whatever does not hold."""
        killed: list[Act] = [self._kill_hook, self._kill_user, self._kill_step]
        killed += [self._kill_gateway, self._freeze_gateway] if number % _ROUGH_ROUNDS == 1 else []
        actors = [
            *(self._actor(number, f"{user} {n}", self._submit(user)) for user in _UIDS for n in range(2)),
            self._actor(number, "canceler", self._cancel, pause=5.0),
            self._actor(number, "killer", *killed, pause=6.0),
            self._actor(number, "daemons", self._kill_slurmd, self._kill_controller, pause=40.0),
            self._actor(number, "puller", self._move, self._pull_and_remove, pause=3.0),
            self._actor(number, "publisher", self._publish, pause=8.0),
            self._actor(number, "expiry", self._expire, pause=6.0),
            self._actor(number, "operator", self._look_after, pause=10.0),
            self._actor(number, "reader", self._read_results, pause=2.0),
        ]
        failure = play(actors, seconds)
        found = [failure] if failure else []
        found += self._quiet()
        did = sum((actor.done for actor in actors), start=type(actors[0].done)())
        self._say(f"slurm round {number}: {self._submitted.told}, {dict(did)}, {self._memory.told}")
        return found

    def keep(self, place: Path) -> None:
        """Copy what tells how it came to what was found."""
        for host in self._cluster.hosts():
            keep_evidence(place / host.name, {"log": host.path("/var/log"), "munge": host.path("/run/munge/log")})
        keep_evidence(place, {"gateway.log": self._cluster.directory / "gateway.log"})

    def _actor(self, number: int, name: str, *acts: Act, pause: float = 1.0) -> Actor:
        return Actor(name, f"{self._seed} slurm {number}", acts, pause=pause * self._ease)

    # -- users --------------------------------------------------------------------------------------------------

    def _submit(self, user: str) -> Act:
        def submit(dice: random.Random) -> None:
            if len(self._submitted.now()) > 8:
                return
            one = wish(dice, user, _IMAGES[user], 2)
            tag = self._tags.get(one.image)
            oldest = tag.oldest if tag else 0
            task = look(one.volumes)
            steps = dice.choice(
                ["", f"srun sh -c '{task}'\n{ENDED}", f"srun --overlap sh -c '{task}' & wait $!\n{ENDED}"]
            )
            script = f"#!/bin/sh\n{task}\necho {BEGAN}\n{steps}\n{one.work}\n"
            volumes = [f"--volume={text}" for text in (*one.volumes.texts, *([one.refused] if one.refused else []))]
            words = ["sbatch", "--parsable", f"--image={one.image}", f"--nodes={one.nodes}", *volumes]
            done = self._slurm.run(user, *words, input=script)
            assert "Traceback" not in done.stderr, done.stderr
            if done.returncode == 0:
                pinned = NOT_PINNED not in done.stderr
                name = self._slurm.marker(one.image)
                markers = tag.markers(oldest, pinned=pinned) if tag else always(name)
                job = done.stdout.strip().partition(";")[0]
                word = one.volumes.word
                self._submitted.add(Expected(job, user, _UIDS[user], markers, word, one.nodes, bool(one.refused)))

        return submit

    def _read_results(self, _: random.Random) -> None:
        """Jobs that are over: what they printed was from inside their image."""
        listed = self._cluster.root(LOGIN, "squeue", "--noheader", "--format=%A", check=False)
        if listed.returncode:
            return  # the controller is away
        there = set(listed.stdout.split())
        for job in self._submitted.now():
            if job.job not in there:
                self._submitted.over(job, self._slurm.output(job.user, job.job))

    def _cancel(self, dice: random.Random) -> None:
        jobs = self._submitted.now()
        if jobs:
            self._cluster.root(LOGIN, "scancel", dice.choice(jobs).job, check=False)

    # -- images -------------------------------------------------------------------------------------------------

    def _move(self, dice: random.Random) -> None:
        """A tag gets another image while jobs of the old one wait and run."""
        self._pull("alice", "moving:1", dice.choice([(), ("--format", "directory")]))

    def _publish(self, _: random.Random) -> None:
        """So does one that is everybody's."""
        self._pull("root", "shared:1", ["--public"])

    def _pull_and_remove(self, dice: random.Random) -> None:
        name = dice.choice(("short:1", "short:2"))
        self._pull("bob", name)
        time.sleep(dice.uniform(0, 2))
        self._quietly("bob", "udi", "rm", name)

    def _expire(self, _: random.Random) -> None:
        self._quietly("udi", "udi-gateway", "expire", cwd="/")

    def _pull(self, user: str, name: str, options: Sequence[str] = ()) -> None:
        archive = self._cluster.directory / f"scratch/soak-{name.replace(':', '-')}.tar"
        marker, uid = self._tags[name].next(), _UIDS.get(user, 0)
        images.save(archive, images.tiny(marker), name, (uid, uid))
        done = self._quietly(user, "udi", "pull", f"docker-archive:/scratch/{archive.name}", *options)
        if done.returncode == 0:
            self._tags[name].moved()

    def _quietly(self, user: str, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """A command that may fail while the gateway is away, but never with a traceback."""
        done = self._slurm.run(user, *words, **more)
        assert "Traceback" not in done.stderr, f"{words}: {done.stderr}"
        return done

    # -- what goes wrong ----------------------------------------------------------------------------------------

    def _node(self, dice: random.Random) -> str:
        return dice.choice(self._cluster.names)

    def _kill_hook(self, dice: random.Random) -> None:
        self._cluster.root(self._node(dice), "pkill", "-KILL", "-f", "admin.entry.slurm", check=False)

    def _kill_user(self, dice: random.Random) -> None:
        self._cluster.root(self._node(dice), "pkill", "-KILL", "-u", str(dice.choice((ALICE, BOB))), check=False)

    def _kill_step(self, dice: random.Random) -> None:
        self._cluster.root(self._node(dice), "pkill", "-KILL", "-f", "^slurmstepd", check=False)

    def _freeze_gateway(self, dice: random.Random) -> None:
        """It is there, and answers nobody for a while."""
        words = ("-u", "udi", "-f", "udi-gateway.*serve")
        self._cluster.root(LOGIN, "pkill", "-STOP", *words, check=False)
        time.sleep(dice.uniform(0.5, 4))
        self._cluster.root(LOGIN, "pkill", "-CONT", *words, check=False)
        for pid in children(os.getpid()):  # nsenter, which stops itself where what it has started is stopped
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def _kill_gateway(self, _: random.Random) -> None:
        self._cluster.root(LOGIN, "pkill", "-KILL", "-u", "udi", "-f", "udi-gateway", check=False)
        self._start_gateway()

    def _start_gateway(self) -> None:
        wait_until(self._gateway_is_gone, 10, 0.1)
        self._cluster.root(LOGIN, "rm", "-f", "/run/udi-gateway/gateway.sock")
        site.start_gateway(self._cluster)

    def _gateway_is_gone(self) -> bool:
        return self._cluster.root(LOGIN, "pgrep", "-u", "udi", "-f", "serve", check=False).returncode != 0

    def _kill_slurmd(self, dice: random.Random) -> None:
        node = self._node(dice)
        self._cluster.kill(node, "slurmd", dice.choice(("KILL", "TERM")))
        time.sleep(dice.uniform(0.1, 3))
        self._cluster.start_slurmd(node)

    def _kill_controller(self, dice: random.Random) -> None:
        self._cluster.stop_controller(dice.choice(("KILL", "TERM")))
        time.sleep(dice.uniform(0.1, 3))
        self._cluster.start_controller()

    # -- the operator -------------------------------------------------------------------------------------------

    def _look_after(self, _: random.Random) -> None:
        """Bring back the nodes that are drained or down, each by `udi-admin recover` on it; release what is held."""
        for node, state in self._states().items():
            if "drain" in state or "down" in state:
                self._quietly_on(node, "/opt/udi/bin/udi-admin", "recover", node)
        listed = self._cluster.root(LOGIN, "squeue", "--noheader", "--format=%A %r", check=False)
        for line in listed.stdout.splitlines():
            job, why = line.split(" ", 1)
            if "held" in why.lower():
                self._cluster.root(LOGIN, "scontrol", "release", job, check=False)

    def _quietly_on(self, node: str, *words: str) -> str:
        done = self._cluster.root(node, *words, check=False)
        assert "Traceback" not in done.stderr, f"{words} on {node}: {done.stderr}"
        return done.stdout + done.stderr

    def _states(self) -> dict[str, str]:
        try:
            return self._cluster.states()
        except (SetupFailed, subprocess.SubprocessError):
            return {}  # the controller is away

    # -- quiet --------------------------------------------------------------------------------------------------

    def _quiet(self) -> list[str]:
        """End all jobs; what is dirty then must be named, and an operator must be able to clean it."""
        self._slurm.cancel()
        if not wait_until(self._all_over, _QUIET_SECONDS, 0.5):
            return [f"jobs do not end: {[job.job for job in self._submitted.now()]}; {self._states()}"]
        time.sleep(3)  # a health check may still be at work
        found = [f"node {node} is dirty, and in service: {left}" for node, left in self._unnamed().items()]
        self._look_after(random.Random(0))
        told = [self._look_at(node) for node in self._cluster.names]
        found += [line for line in told if line]
        found += stores.faults_of(self._cluster.directory / "scratch/udi")
        wait_until(lambda: not self._added(), 5, 0.5)
        found += self._added()
        found += self._memory.grown(self._pids(LOGIN, "-u", "udi", "-f", "udi-gateway.*serve"), "gateway")
        found += self._memory.grown(self._pids(LOGIN, "-x", "slurmctld"), "slurmctld")
        for node in self._cluster.names:
            found += self._memory.grown(self._pids(node, "-x", "slurmd"), "slurmd")
        return found

    def _unnamed(self) -> dict[str, list[str]]:
        """Nodes that have something of a job, and that not even the next run of HealthCheckProgram drains."""
        found = {}
        for node in self._cluster.names:
            if self._slurm.left(node) and not self._is_named(node):
                self._cluster.root(
                    node, "env", f"SLURMD_NODENAME={node}", "/opt/udi/bin/udi-slurm-health", check=False, timeout=60
                )
                if (left := self._slurm.left(node)) and not self._is_named(node):
                    found[node] = left
        return found

    def _is_named(self, node: str) -> bool:
        state = self._states().get(node, "")
        return "drain" in state or "down" in state

    def _added(self) -> list[str]:
        added = {name: census.added() for name, census in self._censuses.items()}
        return [f"{path} is left over on {name}" for name, paths in added.items() for path in paths]

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

    def _look_at(self, node: str) -> str:
        """What is wrong with a node that should be as before."""
        if wait_until(lambda: self._states().get(node) == "idle" and not self._slurm.left(node), 60, 0.5):
            return ""
        recovered = self._quietly_on(node, "/opt/udi/bin/udi-admin", "recover", node)
        return f"node {node} is {self._states().get(node)}, with {self._slurm.left(node)}: {recovered}"

    def _all_over(self) -> bool:
        self._slurm.cancel()
        self._read_results(random.Random(0))
        return not self._submitted.now()
