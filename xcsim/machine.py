"""One machine: a login node, compute nodes, one daemon. What tests and the demo use; the command line is built on it.

All that a machine is lies in its state directory and in its processes, so several can run side by side, any part may
die, and `down` finds the rest.
"""

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lxml import etree

from udiroot.errors import NotFound, SetupFailed, TimedOut, UsageError
from xcsim import loops, network, registry, shared_root, site
from xcsim.access import LoginAccess
from xcsim.entering import Entry
from xcsim.faults import Fault
from xcsim.initramfs import BUSYBOX, NodeMount
from xcsim.login import HostDirectory, LoginNode
from xcsim.network import Network
from xcsim.node import ComputeNode, NodeFiles
from xcsim.processes import ProcessId, wait_until
from xcsim.settings import SOCKET, Settings

LOOK = f"{shared_root.SOFTWARE}/bin/look"
_FILES = (
    "settings.json",
    "network.json",
    "login.json",
    "registry.json",
    "daemon.json",
    "faults.json",
    "sdb.json",
    "alps.json",
    "torque.json",
)
_START_SECONDS = 20.0


class Machine(LoginAccess):
    """The machine whose state is in one directory, running or not."""

    # -- up and down -------------------------------------------------------------------------------------------

    def up(
        self, settings: Settings | None = None, *, with_site: bool = True, site_changes: site.Tables | None = None
    ) -> "Machine":
        """Start whatever is not running: login node, compute nodes, daemon, and the site's software.

        `site_changes` are settings of `udi.toml` by table; they take effect when the site is first installed.
        """
        if not Path(BUSYBOX).exists():
            raise SetupFailed(f"{BUSYBOX} is missing", "apt-get install busybox-static")
        fresh = not (self.state / "settings.json").exists()
        if not fresh and settings not in (None, self.settings):
            raise UsageError(f"the machine in {self.state} is running with other settings", "run xcsim down first")
        shared_root.lay_out_state(self.state)
        if fresh:
            (settings or Settings()).write(self.state)
        furnished = self.login.running
        venv = shared_root.VENV if with_site else shared_root.OWN_VENV
        self.login.start(self._directories(venv))
        if not furnished:
            shared_root.furnish(self.login.path("/"), venv)
        Network(self.state).start()
        with ThreadPoolExecutor(len(self.settings.nids)) as pool:
            list(pool.map(ComputeNode.start, self.nodes().values()))
        self.start_daemon()
        if with_site:
            site.install(self, site_changes or {})
        return self

    def configure_site(self, changes: site.Tables) -> None:
        """Rewrite `udi.toml` with these changes; hooks use them at once, the gateway when it is next started."""
        site.configure(self, changes)

    def start_daemon(self) -> None:
        """Start the daemon, unless it is running, and wait until it listens."""
        if self.daemon is not None:
            return
        with open(self.state / "log/xcsimd.log", "ab") as log:
            process = self.login.popen(
                [shared_root.DAEMON], entry=Entry(), env={"PATH": "/usr/bin:/bin"}, stdout=log, stderr=log
            )
        started = ProcessId.of(process.pid)
        (self.state / "daemon.json").write_text(json.dumps({"pid": started.pid, "start": started.start}))
        answers = wait_until(self._answers, _START_SECONDS, 0.02)
        if not answers or not started.alive:
            raise SetupFailed("the daemon did not start", f"see {self.state}/log/xcsimd.log")

    def _answers(self) -> bool:
        if self.daemon is None:
            return True
        return self.login.path(SOCKET).exists() and self.run_as("root", [LOOK]).returncode == 0

    def down(self, *, keep: bool = False) -> None:
        """Stop the machine and leave the host as it was; safe to repeat.

        `keep` leaves the image store and the homes on disk.
        """
        for record in (self.state / "nodes").glob("*.json"):
            ComputeNode.of_record(record).stop()
        Network(self.state).stop()
        LoginNode(self.state, "").stop()
        loops.unbind_those_on(self.state)
        if keep or not self.state.exists():
            return
        for top in {directory.split("/")[0] for directory in shared_root.STATE_DIRECTORIES}:
            if (self.state / top).exists():
                shutil.rmtree(self.state / top)
        for name in _FILES:
            (self.state / name).unlink(missing_ok=True)
        if not any(self.state.iterdir()):
            self.state.rmdir()

    def __enter__(self) -> "Machine":
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    # -- its parts ---------------------------------------------------------------------------------------------

    @property
    def daemon(self) -> ProcessId | None:
        """The daemon's process, while it is running."""
        try:
            saved = json.loads((self.state / "daemon.json").read_text())
        except FileNotFoundError:
            return None
        known = ProcessId(saved["pid"], saved["start"])
        return known if known.alive else None

    def nodes(self) -> dict[int, ComputeNode]:
        """All compute nodes by nid."""
        files = self._node_files()
        return {nid: ComputeNode(nid, files) for nid in self.settings.nids}

    def node(self, nid: int) -> ComputeNode:
        if nid not in self.settings.nids:
            raise NotFound(f"no node {nid} on this machine", f"its nodes are {self.settings.nids}")
        return self.nodes()[nid]

    def _node_files(self) -> NodeFiles:
        return NodeFiles(
            state=self.state / "nodes",
            mounts=(
                NodeMount("/scratch", "/scratch"),
                NodeMount("/scratch/udi", "/lus/udi"),
                NodeMount("/home", "/home"),
            ),
            namespace=self.login.pid if self.login.running else None,
            libplugin=self.settings.libplugin,
            network=Network(self.state),
            hosts=network.hosts(self.settings.nids),
        )

    def _directories(self, venv: str) -> list[HostDirectory]:
        directories = [
            HostDirectory(str(self.state / "lustre"), "/scratch"),
            HostDirectory(str(self.state / "home"), "/home"),
            HostDirectory(str(self.state / "gateway"), "/var/lib/udi-gateway"),
            HostDirectory(str(self.state / "registry"), registry.DIRECTORY),
        ]
        if sys.prefix != sys.base_prefix:
            directories.append(HostDirectory(sys.prefix, venv, copied=True))
        return directories

    # -- jobs -----------------------------------------------------------------------------------------------------

    def qsub(
        self,
        user: str,
        arguments: Sequence[str] = (),
        script: str = "",
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> str:
        """Submit a script as that user; returns the job id."""
        done = self.run_as(user, ["/usr/bin/qsub", *arguments], input=script, env=env, cwd=cwd)
        if done.returncode != 0:
            raise UsageError(f"qsub exited with {done.returncode}: {done.stderr.strip()}")
        return done.stdout.strip()

    def job(self, job: str) -> dict[str, str]:
        """A job as qstat -x shows it, even while qstat has a fault; nested resources as `Resource_List.nodes`."""
        done = self.run_as("root", [LOOK, "-x", job])
        if done.returncode != 0:
            raise NotFound(done.stderr.strip() or f"no job {job}")
        found = etree.fromstring(done.stdout.encode()).find("Job")
        assert found is not None
        flat: dict[str, str] = {}
        for element in found:
            if len(element):
                flat.update({f"{element.tag}.{part.tag}": part.text or "" for part in element})
            else:
                flat[str(element.tag)] = element.text or ""
        return flat

    def wait_job(self, job: str, states: str = "C", timeout: float = 60.0) -> dict[str, str]:
        """Wait until the job is in one of these states; returns its attributes then. Raises TimedOut."""
        last: dict[str, str] = {}

        def there() -> bool:
            last.update(self.job(job))
            return last["job_state"] in states

        if not wait_until(there, timeout, 0.05):
            raise TimedOut(f"job {job} is in state {last['job_state']} after {timeout:g} s, not in {states}")
        return self.job(job)

    def output(self, job: str, kind: str = "o") -> str:
        """The delivered output (`o`) or error (`e`) file of a job."""
        where = self.job(job)["Output_Path" if kind == "o" else "Error_Path"].split(":", 1)[1]
        return self.path(where).read_text(errors="replace")

    # -- the health of nodes -----------------------------------------------------------------------------------

    def node_states(self) -> dict[int, str]:
        """The state of each node as xtprocadmin shows it."""
        table = self.run_as("root", ["/opt/cray/sdb/default/bin/xtprocadmin"], check=True).stdout
        rows = (line.split() for line in table.splitlines()[1:])
        return {int(row[0]): row[4] for row in rows}

    def set_fault(self, name: str, *, node: int | None = None, count: int | None = None, value: object = "") -> None:
        """Make the machine fail in this way from now on, `count` times or until cleared."""
        optional = ["" if one is None else str(one) for one in (node, count, value)]
        self._fault("set", name, *optional)

    def clear_faults(self, name: str = "") -> None:
        self._fault("clear", *([name] if name else []))

    def faults(self) -> list[Fault]:
        rows = (line.split("\t") for line in self._fault("list").splitlines())
        return [Fault(name, int(n) if n else None, int(c) if c else None, value) for name, n, c, value in rows]

    def _fault(self, *words: str) -> str:
        done = self.run_as("root", [f"{shared_root.SOFTWARE}/bin/fault", *words])
        if done.returncode != 0:
            raise UsageError(done.stderr.strip().removeprefix("fault: "))
        return done.stdout
