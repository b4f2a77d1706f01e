"""A Cray of xcsim with Torque, soaked: users, faults, kills, an operator, and what must hold when all is quiet."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.soak import stores
from tests.soak.actors import Act, Actor, play
from tests.soak.jobs import ENDED, NOT_PINNED, Expected, Submitted, Tag, always, look
from tests.soak.leftovers import Census, keep_evidence
from tests.soak.memory import Memory, named
from tests.soak.wishes import FILE_TEXT, wish
from tests.system import images
from tests.system.cray import SITE, STATE, Cray, merged
from xcsim import site
from xcsim.machine import Machine
from xcsim.processes import namespace_of, wait_until

_UIDS = {"alice": 1001, "bob": 1002}
_IMAGES = {
    "alice": ("tiny:1", "tools:1", "moving:1", "shared:1"),
    "bob": ("secret:1", "tools:1", "shared:1", "short:1", "short:2"),
}
_FAULTS = (
    *("dead-node", "hung-node", "slow-node", "lost-reply", "kill-command", "exit-1", "bad-exit", "reservation-late"),
    *("reservation-gone", "apstat-broken", "qstat-hangs", "qstat-down", "kill-prologue"),
)
_OF_A_NODE = ("dead-node", "hung-node", "slow-node", "lost-reply", "kill-command", "exit-1")
_QUIET_SECONDS = 120.0
_STATES = (STATE, "/run", "/tmp", "/var/tmp", "/scratch", "/home", "/var/lib/udi-gateway", "/var/spool/torque")
_EXPECTED = (
    rf"{STATE}/(reports|locks?)(/.*)?|{STATE}/(jobs|nodes|tries|tries/.*)|/run/(udi-gateway|lock)(/.*)?|/scratch/udi/(images|refs)/.*|/home/.*/(STDIN\.[eo]\d+|.*\.tar)"
    r"|/var/lib/udi-gateway/((locks|turns|layers)(/.*)?|history\.sqlite.*)|/var/spool/torque/(spool|job_logs|server_logs|mom_logs)/.*"
)
"""What stays on the login node: what was reported of jobs, what the gateway keeps, images, and what jobs printed.
Failed starts of a job that was deleted stay for 30 days."""
_ROUGH_ROUNDS = 4
"""One round of so many kills the gateway; in between it lives long enough for its memory to be measured."""
_SKIPPED = re.compile(r"^nid([0-9]+): skipped: not taken out of service by", re.MULTILINE)


class TorqueSoak:
    """One machine for the whole run."""

    def __init__(self, seed: str, say: Callable[[str], None], ease: float) -> None:
        self._seed = seed
        self._say = say
        self._ease = ease
        self._directory = tempfile.TemporaryDirectory(prefix="soak-torque-")
        self._cray = Cray(Machine(Path(self._directory.name) / "state"))
        self._submitted = Submitted()
        self._memory = Memory()
        self._daemon = threading.Lock()
        """Held by who restarts it, and by who only looks on or sets a fault."""
        self._tags = {name: Tag(self._cray.marker(name)) for name in ("moving:1", "shared:1", "short:1", "short:2")}
        self._recovered = subprocess.CompletedProcess[str]([], 0, "", "")
        """What the operator was told last."""

    def __enter__(self) -> TorqueSoak:
        self._cray.up()
        self._cray.machine.configure_site(merged(SITE, {"gateway": {"keep_bytes": 30 << 20}}))
        for user in _UIDS:
            path = self._cray.machine.path(f"/scratch/{user}/input")
            path.write_text(f"{FILE_TEXT}\n")
            os.chown(path, _UIDS[user], _UIDS[user])
        self._move(random.Random(0))
        self._publish(random.Random(0))
        self._census = Census(self._cray.machine.path("/"), _STATES, _EXPECTED)
        return self

    def __exit__(self, *_: object) -> None:
        self._cray.machine.down()
        self._directory.cleanup()

    def round(self, number: int, seconds: float) -> list[str]:
        """Let all act for so long, then quiet; whatever does not hold."""
        killed: list[Act] = [
            self._kill_hook,
            self._kill_user,
            *([self._kill_gateway] if number % _ROUGH_ROUNDS == 1 else []),
        ]
        actors = [
            *(self._actor(number, f"{user} {n}", self._submit(user)) for user in _UIDS for n in range(2)),
            self._actor(number, "canceler", self._cancel, pause=6.0),
            self._actor(number, "faults", self._fault, pause=3.0),
            self._actor(number, "killer", *killed, pause=8.0),
            self._actor(number, "restarts", self._restart_daemon, pause=90.0, late=True),
            self._actor(number, "puller", self._move, self._pull_and_remove, pause=3.0),
            self._actor(number, "publisher", self._publish, pause=8.0),
            self._actor(number, "expiry", self._expire, pause=6.0),
            self._actor(number, "operator", self._look_after, pause=10.0),
            self._actor(number, "reader", self._read_results),
        ]
        failure = play(actors, seconds)
        found = [failure] if failure else []
        found += self._quiet()
        did = sum((actor.done for actor in actors), start=type(actors[0].done)())
        self._say(f"torque round {number}: {self._submitted.told}, {dict(did)}, {self._memory.told}")
        return found

    def keep(self, place: Path) -> None:
        """Copy what tells how it came to what was found."""
        state = self._cray.machine.state
        path = self._cray.machine.path
        keep_evidence(
            place,
            {
                "state": state / "log",
                "torque.json": state / "torque.json",
                "log": path("/var/log"),
                "spool": path(STATE),
            },
        )

    def _actor(self, number: int, name: str, *acts: Act, pause: float = 1.0, late: bool = False) -> Actor:
        return Actor(name, f"{self._seed} torque {number}", acts, pause=pause * self._ease, late=late)

    # -- users --------------------------------------------------------------------------------------------------

    def _submit(self, user: str) -> Act:
        def submit(dice: random.Random) -> None:
            if len(self._submitted.now()) > 12:
                return
            one = wish(dice, user, _IMAGES[user], 3)
            tag = self._tags.get(one.image)
            oldest = tag.oldest if tag else 0
            launch = f"aprun -q -n {2 * one.nodes} -N 2 -b sh -c '{look(one.volumes)}'\n{ENDED}\n"
            script = f"#!/bin/bash\n{launch}{one.work}\n{dice.choice(['', launch])}"
            volumes = ";".join((*one.volumes.texts, *([one.refused] if one.refused else [])))
            listed = f"UDI={one.image}" + (f",UDI_VOLUMES={volumes}" if volumes else "")
            words = ["/usr/bin/qsub", "-v", listed, "-l", f"nodes={one.nodes}:ppn=2"]
            done = self._cray.machine.run_as(user, words, input=script)
            assert "Traceback" not in done.stderr, done.stderr
            if done.returncode == 0:
                pinned = NOT_PINNED not in done.stderr
                name = self._cray.marker(one.image)
                markers = tag.markers(oldest, pinned=pinned) if tag else always(name)
                job = done.stdout.strip()
                word = one.volumes.word
                self._submitted.add(Expected(job, user, _UIDS[user], markers, word, 2 * one.nodes, bool(one.refused)))

        return submit

    def _read_results(self, _: random.Random) -> None:
        """Jobs that are over: what they printed was from inside their image."""
        saved = self._cray.machine.state / "torque.json"
        jobs = json.loads(saved.read_text())["jobs"] if saved.exists() else []
        over = {f"{one['number']}.{one['server']}" for one in jobs if one["state"] == "C"}
        for job in self._submitted.now():
            if job.job in over:
                with self._daemon:
                    text = "".join(self._cray.text(job.job, kind) for kind in ("Output", "Error"))
                self._submitted.over(job, text)

    def _cancel(self, dice: random.Random) -> None:
        jobs = self._submitted.now()
        if jobs:
            self._cray.machine.run_as("root", ["qdel", dice.choice(jobs).job])

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
        self._quietly("bob", "/opt/udi/bin/udi", "rm", name)

    def _expire(self, _: random.Random) -> None:
        self._quietly("udi", "/opt/udi/bin/udi-gateway", "expire")

    def _pull(self, user: str, name: str, options: Sequence[str] = ()) -> None:
        home = "/root" if user == "root" else f"/home/{user}"
        archive = self._cray.machine.path(home) / f"soak-{name.replace(':', '-')}.tar"
        marker, uid = self._tags[name].next(), _UIDS.get(user, 0)
        images.save(archive, images.tiny(marker), name, (uid, uid))
        done = self._quietly(user, "/opt/udi/bin/udi", "pull", f"docker-archive:{home}/{archive.name}", *options)
        if done.returncode == 0:
            self._tags[name].moved()

    def _quietly(self, user: str, *words: str) -> subprocess.CompletedProcess[str]:
        """A command that may fail while the gateway is away, but never with a traceback."""
        done = self._cray.machine.run_as(user, words)
        assert "Traceback" not in done.stderr, f"{words}: {done.stderr}"
        return done

    # -- what goes wrong ----------------------------------------------------------------------------------------

    def _fault(self, dice: random.Random) -> None:
        name = dice.choice(_FAULTS)
        node = dice.choice(list(self._cray.machine.settings.nids)) if name in _OF_A_NODE else None
        with self._daemon:
            self._cray.machine.set_fault(name, node=node)
        time.sleep(dice.uniform(0.2, 5))
        with self._daemon:
            self._cray.machine.clear_faults(name)

    def _kill_hook(self, dice: random.Random) -> None:
        for pid in dice.sample(hooks := self._ours("from admin.entry.torque import"), min(1, len(hooks))):
            _kill(pid)

    def _kill_gateway(self, _: random.Random) -> None:
        for pid in self._ours("udi-gateway", "serve"):
            _kill(pid)
        wait_until(lambda: not self._ours("udi-gateway", "serve"), 10, 0.05)
        site.start_gateway(self._cray.machine)

    def _restart_daemon(self, _: random.Random) -> None:
        """pbs_server, pbs_mom, ALPS and the health checker are one daemon here."""
        with self._daemon:
            if daemon := self._cray.machine.daemon:
                daemon.kill()
                daemon.wait_gone(10)
            self._cray.machine.start_daemon()

    def _ours(self, *words: str) -> list[int]:
        """Processes of this machine's login node, by words of their command lines: it sees those of all machines."""
        own = namespace_of(self._cray.machine.login.pid, "mnt")
        found = []
        for pid in named(*words):
            with contextlib.suppress(OSError):
                if namespace_of(pid, "mnt") == own:
                    found.append(pid)
        return found

    def _kill_user(self, dice: random.Random) -> None:
        """All programs of a user on one node, as the kernel's killer for want of memory may do."""
        nid = dice.choice(list(self._cray.machine.settings.nids))
        script = 'for p in /proc/[0-9]*; do [ "$(stat -c %u $p 2>/dev/null)" != "$0" ] || kill -9 ${p#/proc/}; done'
        self._cray.machine.node(nid).run(["sh", "-c", script, str(dice.choice(list(_UIDS.values())))])

    # -- the operator -------------------------------------------------------------------------------------------

    def _look_after(self, _: random.Random) -> None:
        """Bring back what is out of service and release what is held, as `udi-admin status` says; nodes that Cray's own
        checker took out are the site's to bring back."""
        with self._daemon:
            told, states = self._status(), self._cray.statuses()
        dirty = {one["node"] for one in told["nodes"]}
        dirty |= {f"nid{nid:05d}" for nid, state in states.items() if state != "up"}
        if nodes := ",".join(sorted(dirty)):
            self._recovered = self._quietly("root", "/opt/udi/bin/udi-admin", "recover", nodes)
        for nid in _SKIPPED.findall(self._recovered.stdout):
            self._cray.machine.run_as("root", ["xtprocadmin", "-k", "s", "up", "-n", str(int(nid))])
        for hold in told["held"]:
            self._cray.machine.run_as("root", ["qrls", "-h", "s", hold["job"]])

    def _status(self) -> dict[str, list[dict[str, str]]]:
        done = self._cray.machine.run_as("root", ["/opt/udi/bin/udi-admin", "status", "--json"])
        assert done.returncode == 0, done.stderr
        told: dict[str, list[dict[str, str]]] = json.loads(done.stdout)
        return told

    # -- quiet --------------------------------------------------------------------------------------------------

    def _quiet(self) -> list[str]:
        """End all jobs without faults; what is dirty then must be named, and an operator must be able to clean it."""
        cray = self._cray
        cray.machine.clear_faults()
        if not site.gateway_answers(cray.machine):
            site.start_gateway(cray.machine)
        for job in self._submitted.now():
            cray.machine.run_as("root", ["qdel", job.job])
        if not wait_until(self._all_over, _QUIET_SECONDS, 0.2):
            return [f"jobs do not end: {[job.job for job in self._submitted.now()]}"]
        time.sleep(2)  # Cray's own checker may still be at work
        found = self._unnamed()
        for left in cray.states():
            cray.machine.run_as("root", ["/opt/udi/bin/udi-admin", "takedown", left])
        self._look_after(random.Random(0))
        wait_until(lambda: not cray.differences(), 20, 0.2)
        told = f"{self._recovered.stdout}{self._recovered.stderr}"
        found += [f"node {nid} is not as before: {lines}; {told}" for nid, lines in cray.differences().items()]
        found += [f"node {nid} is {state}: {told}" for nid, state in cray.statuses().items() if state != "up"]
        found += [f"the MOM node keeps {name}" for name in cray.states()]
        found += [f"plan {name} is left over" for name in cray.plans()]
        found += stores.faults_of(cray.machine.path("/scratch/udi"))
        wait_until(lambda: not self._census.added(), 5, 0.5)
        found += [f"{path} is left over" for path in self._census.added()]
        found += self._memory.grown(self._ours("udi-gateway", "serve"), "gateway")
        found += self._memory.grown([daemon.pid] if (daemon := cray.machine.daemon) else [], "xcsimd")
        return found

    def _all_over(self) -> bool:
        self._read_results(random.Random(0))
        return not self._submitted.now()

    def _unnamed(self) -> list[str]:
        """Nodes that have something of a job and that no operator is told of."""
        told = json.dumps(self._status())
        dirty = {
            nid: [line for line in lines if " loops: " not in line]  # those are the whole host's
            for nid, lines in self._cray.differences().items()
        }
        return [
            f"node {nid} is dirty, and udi-admin status does not say so: {lines}"
            for nid, lines in dirty.items()
            if lines and f"nid{nid:05d}" not in told
        ]


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
