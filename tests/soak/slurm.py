"""A real Slurm of slurmsim, soaked: users, kills of every daemon, and what must hold when all is quiet."""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from slurmsim import site
from slurmsim.cluster import LOGIN, Cluster
from tests.slurm.cluster import ALICE, BOB, LOOK, Slurm
from tests.soak import stores
from tests.soak.actors import Actor, play
from tests.soak.jobs import Expected, Submitted
from tests.soak.memory import Memory, named
from tests.system import images
from udiroot.errors import SetupFailed
from xcsim.processes import wait_until

_UIDS = {"alice": ALICE, "bob": BOB}
_IMAGES = {"alice": ("tiny:1", "tools:1", "moving:1"), "bob": ("secret:1", "tools:1")}
_LOOK = LOOK.replace('echo "', 'echo "in ').replace(" $(id -u)", " as $(id -u)").replace("in $(hostname -s)", "rank in")
_QUIET_SECONDS = 120.0


class SlurmSoak:
    """One cluster of two nodes for the whole run."""

    def __init__(self, seed: str, say: Callable[[str], None]) -> None:
        self._seed = seed
        self._say = say
        self._directory = tempfile.mkdtemp(prefix="soak-slurm-")
        self._slurm = Slurm(Cluster(Path(self._directory)))
        self._cluster = self._slurm.cluster
        self._submitted = Submitted()
        self._memory = Memory()
        self._moves = 0

    def __enter__(self) -> SlurmSoak:
        self._slurm.up(tables={"gateway": {"keep_bytes": 30 << 20}})
        self._move(random.Random(0))
        return self

    def __exit__(self, *_: object) -> None:
        self._cluster.stop()
        shutil.rmtree(self._directory)

    def round(self, number: int, seconds: float) -> list[str]:
        """Let all act for so long, then quiet; whatever does not hold."""
        actors = [
            *(Actor(f"{user} {n}", self._of(number), [self._submit(user)]) for user in _UIDS for n in range(2)),
            Actor("canceler", self._of(number), [self._cancel], pause=5.0),
            Actor("killer", self._of(number), [self._kill_hook, self._kill_user, self._kill_gateway], pause=6.0),
            Actor("daemons", self._of(number), [self._kill_slurmd, self._kill_controller], pause=40.0),
            Actor("puller", self._of(number), [self._move, self._pull_and_remove, self._expire], pause=3.0),
            Actor("operator", self._of(number), [self._look_after], pause=10.0),
            Actor("reader", self._of(number), [self._read_results], pause=2.0),
        ]
        failure = play(actors, seconds)
        found = [failure] if failure else []
        found += self._quiet()
        did = sum((actor.done for actor in actors), start=type(actors[0].done)())
        self._say(
            f"slurm round {number}: {self._submitted.total} jobs, {dict(did)}, "
            f"largest gateway {self._memory.highest >> 10} MiB"
        )
        return found

    def _of(self, number: int) -> str:
        return f"{self._seed} slurm {number}"

    # -- users --------------------------------------------------------------------------------------------------

    def _submit(self, user: str) -> Callable[[random.Random], None]:
        def submit(dice: random.Random) -> None:
            if len(self._submitted.now()) > 8:
                return
            name = dice.choice(_IMAGES[user])
            volume = dice.choice([[], [f"--volume=/scratch/{user}:/output"], ["--volume=/scratch:/a/b:ro"]])
            work = dice.choice(["true", "sleep 0.5", "sleep 2", "setsid sleep 30 &", "kill -9 $$"])
            steps = dice.choice(["", f"srun sh -c '{_LOOK}'", f"srun --overlap sh -c '{_LOOK}' & wait"])
            script = f"#!/bin/sh\n{_LOOK}\n{steps}\n{work}\n"
            words = ["sbatch", "--parsable", f"--image={name}", f"--nodes={dice.randint(1, 2)}", *volume]
            done = self._slurm.run(user, *words, input=script)
            assert "Traceback" not in done.stderr, done.stderr
            if done.returncode == 0:
                marker = self._slurm.marker(name)
                self._submitted.add(Expected(done.stdout.strip().partition(";")[0], user, _UIDS[user], marker))

        return submit

    def _read_results(self, _: random.Random) -> None:
        """Jobs that are over: what they printed was from inside their image."""
        listed = self._cluster.root(LOGIN, "squeue", "--noheader", "--format=%A", check=False)
        if listed.returncode:
            return  # the controller is away
        there = set(listed.stdout.split())
        for job in self._submitted.now():
            if job.job not in there:
                text = self._slurm.output(job.user, job.job)
                assert job.wrong(text) == [], f"job {job.job} of {job.user} for {job.marker}: {text}"
                assert "Traceback" not in text, f"job {job.job}: {text}"
                self._submitted.remove(job)

    def _cancel(self, dice: random.Random) -> None:
        jobs = self._submitted.now()
        if jobs:
            self._cluster.root(LOGIN, "scancel", dice.choice(jobs).job, check=False)

    # -- images -------------------------------------------------------------------------------------------------

    def _move(self, _: random.Random) -> None:
        """A tag gets another image while jobs of the old one wait and run."""
        self._moves += 1
        self._pull("alice", "moving:1", f"{self._slurm.marker('moving:1')}-{self._moves}")

    def _pull_and_remove(self, dice: random.Random) -> None:
        name = f"short:{dice.randint(1, 3)}"
        self._pull("bob", name, f"{name}-{dice.random()}")
        self._quietly("bob", "udi", "rm", name)

    def _expire(self, _: random.Random) -> None:
        self._quietly("udi", "udi-gateway", "expire", cwd="/")

    def _pull(self, user: str, name: str, marker: str) -> None:
        archive = self._cluster.directory / f"scratch/soak-{name.replace(':', '-')}.tar"
        images.save(archive, images.tiny(marker), name, (_UIDS[user], _UIDS[user]))
        self._quietly(user, "udi", "pull", f"docker-archive:/scratch/{archive.name}")

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
        self._cluster.kill(node, "slurmd")
        time.sleep(dice.uniform(0.1, 3))
        self._cluster.start_slurmd(node)

    def _kill_controller(self, dice: random.Random) -> None:
        self._cluster.stop_controller()
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
        states = self._states()
        found = [
            f"node {node} is dirty, and in service: {left}"
            for node in self._cluster.names
            if (left := self._slurm.left(node)) and states[node].startswith("idle") and "drain" not in states[node]
        ]
        self._look_after(random.Random(0))
        told = [self._look_at(node) for node in self._cluster.names]
        found += [line for line in told if line]
        found += stores.faults_of(self._cluster.directory / "scratch/udi")
        pids = self._cluster.root(LOGIN, "pgrep", "-u", "udi", "-f", "udi-gateway.*serve", check=False).stdout.split()
        found += self._memory.grown(self._outside(int(pid)) for pid in pids)
        return found

    def _look_at(self, node: str) -> str:
        """What is wrong with a node that should be as before."""
        if wait_until(lambda: self._states().get(node) == "idle" and not self._slurm.left(node), 60, 0.5):
            return ""
        recovered = self._quietly_on(node, "/opt/udi/bin/udi-admin", "recover", node)
        return f"node {node} is {self._states().get(node)}, with {self._slurm.left(node)}: {recovered}"

    def _outside(self, pid: int) -> int:
        """The number that a gateway of the login host has on this machine; 0 where it has ended."""
        for outside in named("udi-gateway", "serve"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                numbers = Path(f"/proc/{outside}/status").read_text().partition("NSpid:")[2].splitlines()[0].split()
                if numbers[-1] == str(pid):
                    return outside
        return 0

    def _all_over(self) -> bool:
        self._slurm.cancel()
        self._read_results(random.Random(0))
        return not self._submitted.now()
