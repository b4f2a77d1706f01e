"""A Cray of xcsim with Torque, soaked: faults of nodes and commands, and what must hold of them when all is quiet."""

from __future__ import annotations

import contextlib
import json
import random
import re
import secrets
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tests.conversions import conversions
from tests.soak.actors import Act, Role
from tests.soak.jobs import ENDED, Expected, look
from tests.soak.leftovers import Census
from tests.soak.machine import GATEWAY_STATE, KEPT, STORE, UIDS, Soaked, signal_all, without_traceback
from tests.soak.memory import named
from tests.soak.wishes import Wish
from tests.system.cray import HOOKS_LOG, SITE, STATE, Cray, merged
from xcsim import registry, site
from xcsim.loops import NodeLoop, of_node
from xcsim.machine import Machine
from xcsim.ports import free_port
from xcsim.processes import namespace_of, wait_until

_FAULTS = (
    *("dead-node", "hung-node", "slow-node", "lost-reply", "kill-command", "exit-1", "bad-exit", "reservation-late"),
    *("reservation-gone", "apstat-broken", "qstat-hangs", "qstat-down", "kill-prologue"),
)
_OF_A_NODE = ("dead-node", "hung-node", "slow-node", "lost-reply", "kill-command", "exit-1")
_STATES = (STATE, "/run", "/tmp", "/var/tmp", "/scratch", "/home", "/var/lib/udi-gateway", "/var/spool/torque")
_EXPECTED = (
    rf"{STATE}/(reports|locks?)(/.*)?|{STATE}/(jobs|nodes|tries|tries/.*)|/run/(udi-gateway|munge|lock)(/.*)?|{STORE}"
    rf"|/home/.*/STDIN\.[eo]\d+|{GATEWAY_STATE}|/var/spool/torque/(spool|job_logs|server_logs|mom_logs)/.*"
)
"""What stays on the login node: what was reported of jobs, what the gateway keeps, images, and what jobs printed.
Failed starts of a job that was deleted stay for 30 days."""
_SKIPPED = re.compile(r"^nid([0-9]+): skipped: not taken out of service by", re.MULTILINE)
_MUNGE = "/run/munge/soak"
_ELSEWHERE = (
    "mount -n -t tmpfs none /run/udi-gateway\n"
    'exec setpriv --reuid="$0" --regid="$0" --init-groups env HOME="$(getent passwd "$0" | cut -d: -f6)" "$@"'
)


class SoakedCray(Soaked):
    """One machine of four nodes."""

    name = "torque"
    all_nodes = 4
    most_nodes = 3
    most_jobs = 12

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="soak-torque-")
        self._cray = Cray(Machine(Path(self._directory.name) / "state"))
        self._daemon = threading.Lock()
        """Held by who restarts it, and by who only looks on or sets a fault."""
        self._recovered = subprocess.CompletedProcess[str]([], 0, "", "")
        """What the operator was told last."""

    def up(self) -> None:
        self._cray.up()
        key = self._cray.machine.path(f"{_MUNGE}/key")
        key.parent.mkdir(parents=True)
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o600)
        self._start_munged()
        network = {"gateway": {"address": f"127.0.0.1:{free_port()}", "munge": f"{_MUNGE}/socket"}}
        self._cray.machine.configure_site(merged(SITE, KEPT, network))
        signal_all(self.gateway(serving=True), signal.SIGTERM)
        wait_until(lambda: not self.gateway(serving=True), 10, 0.05)
        self.start_gateway()

    def down(self) -> None:
        self._cray.machine.down()
        self._directory.cleanup()

    @property
    def scratch(self) -> Path:
        return self._cray.machine.path("/scratch")

    def marker(self, name: str) -> str:
        return self._cray.marker(name)

    # -- users --------------------------------------------------------------------------------------------------

    def run(self, user: str, *words: str, input: str = "") -> subprocess.CompletedProcess[str]:
        return self._cray.machine.run_as(user, words, input=input)

    def run_elsewhere(self, user: str, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run("root", "unshare", "--mount", "sh", "-ec", _ELSEWHERE, user, *words)

    def submission(self, one: Wish, volumes: Sequence[str], dice: random.Random) -> tuple[list[str], str, int]:
        launch = f"aprun -q -n {2 * one.nodes} -N 2 -b sh -c '{look(one.volumes)}'\n{ENDED}\n"
        script = f"#!/bin/bash\n{launch}{one.work}\n{dice.choice(['', launch])}"
        listed = f"UDI={one.image}" + (f",UDI_VOLUMES={';'.join(volumes)}" if volumes else "")
        return ["/usr/bin/qsub", "-v", listed, "-l", f"nodes={one.nodes}:ppn=2"], script, 2 * one.nodes

    def over(self, jobs: Iterable[Expected]) -> list[Expected]:
        saved = self._cray.machine.state / "torque.json"
        known = json.loads(saved.read_text())["jobs"] if saved.exists() else []
        ended = {f"{one['number']}.{one['server']}" for one in known if one["state"] == "C"}
        return [job for job in jobs if job.job in ended]

    def printed(self, job: Expected) -> str:
        with self._daemon:
            return "".join(self._cray.text(job.job, kind) for kind in ("Output", "Error"))

    def cancel(self, job: str) -> None:
        self._cray.machine.run_as("root", ["qdel", job])

    # -- what goes wrong ----------------------------------------------------------------------------------------

    def roles(self) -> list[Role]:
        return [
            Role("faults", [self._fault], pause=3.0),
            Role("restarts", [self._restart_daemon], pause=90.0, late=True),
        ]

    def kills(self) -> list[Act]:
        return [self._kill_hook, self._kill_user]

    def _fault(self, dice: random.Random) -> None:
        name = dice.choice(_FAULTS)
        node = dice.choice(list(self._cray.machine.settings.nids)) if name in _OF_A_NODE else None
        with self._daemon:
            self._cray.machine.set_fault(name, node=node)
        time.sleep(dice.uniform(0.2, 5))
        with self._daemon:
            self._cray.machine.clear_faults(name)

    def _kill_hook(self, dice: random.Random) -> None:
        hooks = self._ours("from admin.entry.torque import")
        signal_all(dice.sample(hooks, min(1, len(hooks))), signal.SIGKILL)

    def _kill_user(self, dice: random.Random) -> None:
        """All programs of a user on one node, as the kernel's killer for want of memory may do."""
        nid = dice.choice(list(self._cray.machine.settings.nids))
        script = 'for p in /proc/[0-9]*; do [ "$(stat -c %u $p 2>/dev/null)" != "$0" ] || kill -9 ${p#/proc/}; done'
        self._cray.machine.node(nid).run(["sh", "-c", script, str(dice.choice(list(UIDS.values())))])

    def _restart_daemon(self, _: random.Random) -> None:
        """pbs_server, pbs_mom, ALPS and the health checker are one daemon here."""
        with self._daemon:
            if daemon := self._cray.machine.daemon:
                daemon.kill()
                daemon.wait_gone(10)
            self._cray.machine.start_daemon()

    def gateway(self, *, serving: bool) -> list[int]:
        found = self._ours("udi-gateway", "serve")
        return found if serving else [*found, *self._ours("udi-gateway", "expire")]

    def conversions(self) -> list[int]:
        return list(conversions(self._ours("-m gateway.")))

    def push(self, archive: Path, name: str) -> None:
        registry.push(self._cray.machine, archive, name)

    def start_gateway(self) -> None:
        site.start_gateway(self._cray.machine)

    def kill_munged(self, dice: random.Random, how: str) -> Callable[[], None]:
        signal_all(self._ours("munged", _MUNGE), signal.Signals[f"SIG{how}"])
        wait_until(lambda: not self._ours("munged", _MUNGE), 10, 0.05)
        return self._start_munged

    def _start_munged(self) -> None:
        places = {"key-file": "key", "socket": "socket", "pid-file": "pid", "seed-file": "seed", "log-file": "log"}
        words = ["/usr/sbin/munged", "--force", *(f"--{name}={_MUNGE}/{place}" for name, place in places.items())]
        self._cray.machine.run_as("root", words, check=True)

    def _ours(self, *words: str) -> list[int]:
        """Processes of this machine's login node, by words of their command lines: it sees those of all machines."""
        own = namespace_of(self._cray.machine.login.pid, "mnt")
        found = []
        for pid in named(*words):
            with contextlib.suppress(OSError):
                if namespace_of(pid, "mnt") == own:
                    found.append(pid)
        return found

    def calm(self) -> None:
        self._cray.machine.clear_faults()

    # -- the operator -------------------------------------------------------------------------------------------

    def look_after(self, _: random.Random) -> None:
        """As `udi-admin status` says; nodes that Cray's own checker took out are the site's to bring back."""
        with self._daemon:
            told, states = self._status(), self._cray.statuses()
        dirty = {one["node"] for one in told["nodes"]}
        dirty |= {f"nid{nid:05d}" for nid, state in states.items() if state != "up"}
        if nodes := ",".join(sorted(dirty)):
            self._recovered = without_traceback(self.run("root", "/opt/udi/bin/udi-admin", "recover", nodes))
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

    def unnamed(self) -> list[str]:
        told = json.dumps(self._status())
        return [
            f"node {nid} is dirty, and udi-admin status does not say so: {lines}"
            for nid, lines in self._cray.differences().items()
            if f"nid{nid:05d}" not in told
        ]

    def cleaned(self) -> list[str]:
        cray = self._cray
        for left in cray.states():
            cray.machine.run_as("root", ["/opt/udi/bin/udi-admin", "takedown", left])
        self.look_after(random.Random(0))
        wait_until(lambda: not cray.differences(), 20, 0.2)
        told = f"{self._recovered.stdout}{self._recovered.stderr}"
        found = [f"node {nid} is not as before: {lines}; {told}" for nid, lines in cray.differences().items()]
        found += [f"node {nid} is {state}: {told}" for nid, state in cray.statuses().items() if state != "up"]
        found += [f"the MOM node keeps {name}" for name in cray.states()]
        return found + [f"plan {name} is left over" for name in cray.plans()]

    def censuses(self) -> dict[str, Census]:
        return {"the login node": Census(self._cray.machine.path("/"), _STATES, _EXPECTED)}

    def daemons(self) -> dict[str, list[int]]:
        return {"xcsimd": [daemon.pid] if (daemon := self._cray.machine.daemon) else []}

    def loops(self) -> list[NodeLoop]:
        machine = self._cray.machine
        pids = [machine.login.pid, *(node.pid for node in machine.nodes().values())]
        return [one for pid in pids for one in of_node(pid)]

    def logs(self) -> list[Path]:
        return [self._cray.machine.state / "log/gateway.log", self._cray.machine.path(HOOKS_LOG)]

    def evidence(self) -> dict[str, Path]:
        state, path = self._cray.machine.state, self._cray.machine.path
        kept = {"state": state / "log", "torque.json": state / "torque.json"}
        return kept | {"log": path("/var/log"), "spool": path(STATE), "munge": path(_MUNGE)}
