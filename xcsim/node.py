"""A compute node: real mount, pid, uts, net and ipc namespaces around an initramfs root, with `init` as pid 1.

A node needs no daemon. All that is recorded of it is its init's pid and start time, in `NodeFiles.state`; the kernel
knows the rest. When its init is killed, every process and every mount of the node goes with it.
"""

import contextlib
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from udi.nodes import named, numbered
from udiroot.errors import NotFound, SetupFailed
from xcsim import initramfs, kernel
from xcsim.entering import Entry, entered
from xcsim.initramfs import NodeMount as NodeMount
from xcsim.loops import of_node
from xcsim.network import Network
from xcsim.picture import NodePicture, take
from xcsim.processes import ProcessId, children, members, namespace_of

BARE_ENVIRONMENT = {"PATH": "/bin:/sbin", "HOME": "/root"}
STOP_SECONDS = 30.0


@dataclass(frozen=True)
class NodeFiles:
    """What the nodes of one machine share.

    `state` holds one small file per node. `shared_root` appears read-only at `/dsl`; `mounts` follow in order.
    All paths are those of the mount namespace of the process `namespace`, or of ours where that is None. With a
    `network`, nodes reach each other; `hosts` are additional lines of their /etc/hosts.
    """

    state: Path
    shared_root: str = "/"
    mounts: tuple[NodeMount, ...] = ()
    namespace: int | None = None
    libplugin: bool = True
    network: Network | None = None
    hosts: str = ""
    stop_seconds: float = field(default=STOP_SECONDS)


class ComputeNode:
    """One node of the machine, running or not."""

    def __init__(self, nid: int, files: NodeFiles) -> None:
        self.nid = nid
        self.files = files

    @classmethod
    def of_record(cls, record: Path) -> "ComputeNode":
        """The node that was recorded in that file, to be stopped."""
        number = named(record.stem).number
        assert number is not None, record
        return cls(number, NodeFiles(record.parent))

    @property
    def name(self) -> str:
        return numbered(self.nid).name

    # -- life ---------------------------------------------------------------------------------------------------

    def start(self) -> "ComputeNode":
        """Start the node, unless it is running. Returns once its init runs. Raises SetupFailed."""
        if self.running:
            return self
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            _boot(self, writer)
        os.close(writer)
        with os.fdopen(reader) as report:
            lines = report.read().split("\n")
        os.waitpid(child, 0)
        problem = " ".join(line for line in lines if line and not line.isdigit())
        if problem or not lines[0].isdigit():
            raise SetupFailed(f"{self.name} did not start: {problem or 'no reason given'}")
        init = ProcessId.of(int(lines[0]))
        self.files.state.mkdir(parents=True, exist_ok=True)
        temporary = self._record.with_suffix(".new")
        temporary.write_text(json.dumps({"pid": init.pid, "start": init.start}))
        temporary.rename(self._record)
        if self.files.network:
            try:
                self.files.network.join(self.nid, init.pid)
            except SetupFailed:
                self.stop()
                raise
        return self

    def stop(self) -> None:
        """Stop the node, and what it has bound to files; safe to repeat. Raises SetupFailed."""
        init = self._saved_init()
        if init is not None:
            bound = of_node(init.pid) if init.alive else []
            init.kill()
            if not init.wait_gone(self.files.stop_seconds):
                raise SetupFailed(f"{self.name} did not stop: its init {init.pid} does not exit")
            for one in bound:
                one.end(self.files.stop_seconds)
        self._record.unlink(missing_ok=True)

    @property
    def running(self) -> bool:
        init = self._saved_init()
        return init is not None and init.alive

    @property
    def pid(self) -> int:
        """The pid that the node's init has on the host. Raises NotFound."""
        init = self._saved_init()
        if init is None or not init.alive:
            raise NotFound(f"node {self.name} is not running")
        return init.pid

    @property
    def _record(self) -> Path:
        return self.files.state / f"{self.name}.json"

    def _saved_init(self) -> ProcessId | None:
        try:
            saved = json.loads(self._record.read_text())
        except FileNotFoundError:
            return None
        return ProcessId(saved["pid"], saved["start"])

    def __enter__(self) -> "ComputeNode":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- running programs on it -------------------------------------------------------------------------------------

    def popen(
        self,
        argv: Sequence[str],
        *,
        entry: Entry | None = None,
        env: Mapping[str, str] | None = None,
        stdin: int | IO[Any] | None = subprocess.DEVNULL,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
        text: bool = False,
    ) -> "subprocess.Popen[Any]":
        """Start a program of the node (or of `entry.root`) inside it, as a session leader.

        The process returned stands for it on this side: same exit status, signals are passed on, and its death
        kills the program. `program_of` gives the pid of the program itself.
        """
        return subprocess.Popen(
            list(argv),
            env=dict(BARE_ENVIRONMENT if env is None else env),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=text,
            preexec_fn=entered(self.pid, entry or Entry()),
        )

    def run(
        self,
        argv: Sequence[str],
        *,
        uid: int = 0,
        gid: int = 0,
        groups: Sequence[int] = (),
        root: str = "/",
        cwd: str = "/",
        env: Mapping[str, str] | None = None,
        input: str | None = None,
        timeout: float | None = 60.0,
        check: bool = False,
    ) -> "subprocess.CompletedProcess[str]":
        """Run a program inside the node to completion, with its output captured as text."""
        entry = Entry(uid=uid, gid=gid, groups=tuple(groups), root=root, cwd=cwd)
        stdin = subprocess.DEVNULL if input is None else subprocess.PIPE
        pipe = subprocess.PIPE
        with self.popen(argv, entry=entry, env=env, stdin=stdin, stdout=pipe, stderr=pipe, text=True) as process:
            try:
                out, err = process.communicate(input, timeout)
            except BaseException:
                kill_program(process)
                raise
        done = subprocess.CompletedProcess(list(argv), process.returncode, out, err)
        if check:
            done.check_returncode()
        return done

    # -- looking at it ----------------------------------------------------------------------------------------------

    def snapshot(self) -> NodePicture:
        """A picture of the node, to compare with another one."""
        return take(self.pid)

    def processes(self) -> list[int]:
        """The pids, on the host, of everything that runs on the node, including its init."""
        return sorted(members("pid", namespace_of(self.pid, "pid")))

    def path(self, inside: str) -> Path:
        """Where the host (as root) finds a file of the node; links inside must not be followed blindly."""
        return Path(f"/proc/{self.pid}/root{inside}")


def program_of(process: "subprocess.Popen[Any]") -> int | None:
    """The pid, on the host, of the program that a `popen` stands for; None once it has exited."""
    return next(iter(children(process.pid)), None)


def kill_program(process: "subprocess.Popen[Any]") -> None:
    """Kill a program started by `popen` and all of its process group."""
    program = program_of(process)
    if program is not None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program, 9)
    else:
        process.kill()


# -- boot: in children of `start` ---------------------------------------------------------------------------------


def _boot(node: ComputeNode, report: int) -> None:
    """In the forked child: new namespaces, then init in a child of its own. Reports its pid, or an error on line 2."""
    status, files = 1, node.files
    try:
        if files.namespace is not None:
            with open(f"/proc/{files.namespace}/ns/mnt") as login:
                kernel.setns(login.fileno())
        kernel.unshare(
            kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWUTS | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC
        )
        init = os.fork()
        if init == 0:
            _become_init(node, report)
        os.write(report, f"{init}\n".encode())
        status = 0
    except OSError as error:
        os.write(report, f"\n{error}".encode())
    finally:
        os._exit(status)


def _become_init(node: ComputeNode, report: int) -> None:
    """As pid 1: build the root, move into it, become `init`. Reports nothing but an error."""
    root, files = "/mnt", node.files
    try:
        kernel.mount("none", "/", flags=kernel.MS_PRIVATE | kernel.MS_REC)
        # Opened here, since a bind starts from a mount of its own namespace, and before /mnt hides what is below it.
        shared = (NodeMount(files.shared_root, "/dsl", readonly=True), *files.mounts)
        sources = [(os.open(site.source, os.O_PATH | os.O_DIRECTORY), site) for site in shared]
        os.setsid()
        os.umask(0o022)
        kernel.mount("initramfs", root, "tmpfs", kernel.MS_NOSUID, "mode=0755")
        initramfs.build(root, node.nid, sources, libplugin=files.libplugin, hosts=files.hosts)
        kernel.enter_root(root)
        kernel.set_host_name(node.name)
        kernel.raise_loopback()
        null = os.open("/dev/null", os.O_RDWR)
        for standard in range(3):
            os.dup2(null, standard)
        os.execve("/sbin/init", ["init"], {"PATH": "/bin:/sbin", "TERM": "linux"})  # noqa: S606
    except OSError as error:
        os.write(report, f"\n{error}".encode())
    finally:
        os._exit(1)
