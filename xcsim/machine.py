"""One machine: a login node, compute nodes, one daemon. What tests and the demo use; the command line is a skin on it.

All that a machine is lies in its state folder and in its processes, so several live side by side, any part may die,
and `down` finds the rest.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lxml import etree

from udiroot.errors import NotFound, SetupFailed, TimedOut, UsageError
from xcsim import loops, network, registry, shared_root, site
from xcsim.entering import Entry
from xcsim.faults import Fault
from xcsim.initramfs import BUSYBOX, NodeMount
from xcsim.login import HostFolder, LoginNode
from xcsim.network import Network
from xcsim.node import ComputeNode, NodeFiles
from xcsim.processes import ProcessId, wait_until
from xcsim.settings import SOCKET, Settings

LOOK = f"{shared_root.SOFTWARE}/bin/look"
DEFAULT_STATE = Path("/var/lib/xcsim")
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


class Machine:
    """The machine whose state lies in one folder, up or not."""

    def __init__(self, state: Path = DEFAULT_STATE) -> None:
        self.state = state.absolute()

    # -- up and down -------------------------------------------------------------------------------------------

    def up(
        self, settings: Settings | None = None, *, with_site: bool = True, site_changes: site.Tables | None = None
    ) -> "Machine":
        """Bring up whatever is not: login node, compute nodes, daemon, and the site's software on it.

        `site_changes` are settings of `udi.toml` by table; they count when the site is first installed.
        """
        if not Path(BUSYBOX).exists():
            raise SetupFailed(f"{BUSYBOX} is missing", "apt-get install busybox-static")
        fresh = not (self.state / "settings.json").exists()
        if not fresh and settings not in (None, self.settings):
            raise UsageError(f"the machine in {self.state} is up with other settings", "xcsim down comes first")
        shared_root.lay_out_state(self.state)
        if fresh:
            (settings or Settings()).write(self.state)
        furnished = self.login.running
        self.login.start(self._folders())
        if not furnished:
            shared_root.furnish(self.login.path("/"))
        Network(self.state).start()
        with ThreadPoolExecutor(len(self.settings.nids)) as pool:
            list(pool.map(ComputeNode.start, self.nodes().values()))
        self.start_daemon()
        if with_site:
            site.install(self, site_changes or {})
        return self

    def configure_site(self, changes: site.Tables) -> None:
        """Write `udi.toml` anew with these changes; the hooks follow at once, the gateway when it is next started."""
        site.configure(self, changes)

    def start_daemon(self) -> None:
        """Start the daemon, unless it runs, and wait until it listens."""
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
        """Leave the host as it was; harmless twice. `keep` leaves the store and the homes on the disk."""
        for record in (self.state / "nodes").glob("nid*.json"):
            ComputeNode(int(record.stem[3:]), NodeFiles(self.state / "nodes")).stop()
        Network(self.state).stop()
        LoginNode(self.state, "").stop()
        loops.unbind_those_on(self.state)
        if keep or not self.state.exists():
            return
        for top in {folder.split("/")[0] for folder in shared_root.STATE_FOLDERS}:
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
    def settings(self) -> Settings:
        try:
            return Settings.read(self.state)
        except FileNotFoundError as error:
            raise NotFound(f"there is no machine in {self.state}", "xcsim up makes one") from error

    @property
    def login(self) -> LoginNode:
        return LoginNode(self.state, self.settings.login_name)

    @property
    def daemon(self) -> ProcessId | None:
        """The daemon's process, while it lives."""
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

    def path(self, inside: str) -> Path:
        """Where the host finds a file of the login node."""
        return self.login.path(inside)

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

    def _folders(self) -> list[HostFolder]:
        folders = [
            HostFolder(str(self.state / "lustre"), "/scratch"),
            HostFolder(str(self.state / "home"), "/home"),
            HostFolder(str(self.state / "gateway"), "/var/lib/udi-gateway"),
            HostFolder(str(self.state / "registry"), registry.FOLDER),
        ]
        if sys.prefix != sys.base_prefix:
            folders.append(HostFolder(sys.prefix, shared_root.VENV, copied=True))
        return folders

    # -- people at work ----------------------------------------------------------------------------------------

    def popen_as(
        self,
        user: str,
        argv: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: int | None = subprocess.DEVNULL,
        stdout: int | None = None,
        stderr: int | None = None,
        session: bool = True,
    ) -> "subprocess.Popen[str]":
        """Start a program on the login node as one of its people, with a login's environment and what `env` adds."""
        who = shared_root.account(user)
        if who is None:
            raise NotFound(f"no account {user} on this machine")
        bare = {"HOME": who.home, "USER": user, "LOGNAME": user, "SHELL": who.shell, "LANG": "C.UTF-8"}
        bare["PATH"] = "/opt/udi/bin:/usr/local/bin:/usr/bin:/bin:/opt/cray/alps/default/bin:/opt/cray/sdb/default/bin"
        if user == "root":
            bare["PATH"] += ":/opt/cray/nodehealth/default/bin:/usr/sbin:/sbin"
        groups = shared_root.groups_of(who)
        entry = Entry(who.uid, who.uid, groups, cwd=cwd or who.home, session=session)
        return self.login.popen(
            argv, entry=entry, env=bare | dict(env or {}), stdin=stdin, stdout=stdout, stderr=stderr, text=True
        )

    def run_as(
        self,
        user: str,
        argv: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        input: str | None = None,
        timeout: float | None = 120.0,
        check: bool = False,
    ) -> "subprocess.CompletedProcess[str]":
        """Run a program on the login node to its end, output captured."""
        pipe = subprocess.PIPE
        stdin = subprocess.DEVNULL if input is None else pipe
        with self.popen_as(user, argv, cwd=cwd, env=env, stdin=stdin, stdout=pipe, stderr=pipe) as process:
            try:
                out, err = process.communicate(input, timeout)
            except BaseException:
                process.kill()
                raise
        done = subprocess.CompletedProcess(list(argv), process.returncode, out, err)
        if check and done.returncode != 0:
            raise SetupFailed(f"{argv[0]} ended with {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
        return done

    def qsub(
        self,
        user: str,
        arguments: Sequence[str] = (),
        script: str = "",
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> str:
        """Submit a script as that user; gives the job's id."""
        done = self.run_as(user, ["/usr/bin/qsub", *arguments], input=script, env=env, cwd=cwd)
        if done.returncode != 0:
            raise UsageError(f"qsub ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout.strip()

    def job(self, job: str) -> dict[str, str]:
        """What qstat -x says of a job (whatever fault qstat has); nested resources as `Resource_List.nodes`."""
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
        """Until the job is in one of these states; gives its attributes then."""
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
        """What xtprocadmin says of each node."""
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
