"""The login node, which is also the MOM node: a mount and uts namespace whose root is the machine's shared root.

The shared root is the host's own file system under an overlay whose changes are on a tmpfs, so everything that a site
installs has its true path and the host stays untouched. Network and pids are the host's.
"""

import contextlib
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from udiroot.errors import NotFound, SetupFailed
from xcsim import initramfs, kernel
from xcsim.entering import Entry, entered
from xcsim.loops import of_node
from xcsim.processes import ProcessId, members, namespace_of, wait_until
from xcsim.settings import STATE_INSIDE

HOLDER = ("/bin/sleep", "xcsim-login", "infinity")


@dataclass(frozen=True)
class HostDirectory:
    """A directory of the host that appears on the login node at `target`; `copied`: changes stay on the login node."""

    source: str
    target: str
    copied: bool = False


class LoginNode:
    """The login node of one machine, running or not."""

    def __init__(self, state: Path, name: str) -> None:
        self.state = state
        self.name = name

    def start(self, directories: Sequence[HostDirectory]) -> "LoginNode":
        """Start it, unless it is running; its file systems are in place when this returns. Raises SetupFailed."""
        if self.running:
            return self
        reader, writer = os.pipe()
        shown = (HostDirectory(str(self.state), STATE_INSIDE), *directories)
        child = os.fork()
        if child == 0:
            os.close(reader)
            _become_holder(self.name, shown, writer)
        os.close(writer)
        with os.fdopen(reader) as report:
            text = report.read()
        os.waitpid(child, 0)
        pid, _, problem = text.partition("\n")
        if problem or not pid.isdigit():
            raise SetupFailed(f"the login node did not start: {problem.strip() or 'no reason given'}")
        holder = ProcessId.of(int(pid))
        self._record.write_text(
            json.dumps(
                {
                    "pid": holder.pid,
                    "start": holder.start,
                    "mnt": namespace_of(holder.pid, "mnt"),
                    "uts": namespace_of(holder.pid, "uts"),
                }
            )
        )
        return self

    def stop(self) -> None:
        """Kill every process of the login node, whatever mount namespace it has moved to, then the node itself."""
        saved = self._saved()
        if saved is None:
            return
        holder = ProcessId(int(saved["pid"]), int(saved["start"]))
        # The kernel reuses the number of a dead namespace: without its holder it proves nothing.
        certain = holder.alive
        bound = of_node(holder.pid) if certain else []
        if not wait_until(lambda: not self._kill_members(saved, certain=certain), 30.0, 0.02):
            raise SetupFailed("the login node did not stop: some of its processes do not exit")
        holder.wait_gone(30.0)
        for one in bound:
            one.end(5.0)
        self._record.unlink(missing_ok=True)

    def _kill_members(self, saved: Mapping[str, Any], *, certain: bool) -> bool:
        """Kill all members; True while there were any. Unless `certain`, they must also see our state directory."""
        found = False
        for kind in ("mnt", "uts"):
            for pid in members(kind, str(saved[kind])):
                if not certain and not self._sees_our_state(pid):
                    continue
                found = True
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 9)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
        return found

    def _sees_our_state(self, pid: int) -> bool:
        try:
            return os.path.samefile(f"/proc/{pid}/root{STATE_INSIDE}", self.state)
        except OSError:
            return False

    @property
    def running(self) -> bool:
        saved = self._saved()
        return saved is not None and ProcessId(int(saved["pid"]), int(saved["start"])).alive

    @property
    def pid(self) -> int:
        """The process that keeps the login node alive."""
        saved = self._saved()
        if saved is None or not self.running:
            raise NotFound("the machine is not running", "xcsim up starts it")
        return int(saved["pid"])

    @property
    def _record(self) -> Path:
        return self.state / "login.json"

    def _saved(self) -> dict[str, Any] | None:
        try:
            saved: dict[str, Any] = json.loads(self._record.read_text())
        except FileNotFoundError:
            return None
        return saved

    def path(self, inside: str) -> Path:
        """Where the host (as root) finds a file of the login node."""
        return Path(f"/proc/{self.pid}/root{inside}")

    def popen(
        self,
        argv: Sequence[str],
        *,
        entry: Entry,
        env: Mapping[str, str],
        stdin: int | IO[Any] | None = subprocess.DEVNULL,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
        text: bool = False,
    ) -> "subprocess.Popen[Any]":
        """Start a program on the login node, in a new session unless the entry keeps the caller's."""
        return subprocess.Popen(
            list(argv),
            env=dict(env),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=text,
            preexec_fn=entered(self.pid, entry, ("mnt", "uts")),
        )


def _become_holder(name: str, directories: Sequence[HostDirectory], report: int) -> None:
    """In the forked child: make the namespace and its root, leave a holder in it, and report its pid, or an error."""
    status = 1
    try:
        kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWUTS)
        kernel.mount("none", "/", flags=kernel.MS_PRIVATE | kernel.MS_REC)
        sources = [(os.open(one.source, os.O_PATH | os.O_DIRECTORY), one) for one in directories]
        os.setsid()
        os.umask(0o022)
        _enter_shared_root(sources)
        kernel.set_host_name(name)
        with open("/etc/hosts", "a", encoding="ascii") as hosts:
            hosts.write(f"127.0.1.1 {name}\n")  # sudo, for one, wants to know its own host
        holder = os.fork()
        if holder == 0:
            null = os.open("/dev/null", os.O_RDWR)
            for standard in range(3):
                os.dup2(null, standard)
            os.setsid()
            os.execve(HOLDER[0], HOLDER[1:], {"PATH": "/usr/bin:/bin"})  # noqa: S606
        os.write(report, f"{holder}\n".encode())
        status = 0
    except OSError as error:
        os.write(report, f"\n{error}".encode())
    finally:
        os._exit(status)


def _enter_shared_root(sources: Sequence[tuple[int, HostDirectory]]) -> None:
    changes, root = "/mnt", "/mnt/root"
    kernel.mount("shared-root", changes, "tmpfs", 0, "mode=0755")
    for name in ("upper", "work", "root"):
        os.mkdir(f"{changes}/{name}", 0o755)
    kernel.mount("shared-root", root, "overlay", 0, f"lowerdir=/,upperdir={changes}/upper,workdir={changes}/work")
    for name in ("proc", "dev", "sys", "tmp", "run"):
        os.makedirs(f"{root}/{name}", exist_ok=True)
    kernel.mount("proc", f"{root}/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    kernel.mount("sysfs", f"{root}/sys", "sysfs", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    kernel.mount("tmpfs", f"{root}/tmp", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=1777")
    kernel.mount("tmpfs", f"{root}/run", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=0755")
    initramfs.mount_devices(f"{root}/dev")
    for descriptor, directory in sources:
        os.makedirs(root + directory.target, exist_ok=True)
        source = f"/proc/self/fd/{descriptor}"
        if directory.copied:
            upper, work = f"{changes}/upper-{descriptor}", f"{changes}/work-{descriptor}"
            os.mkdir(upper, 0o755)
            os.mkdir(work, 0o755)
            options = f"lowerdir={source},upperdir={upper},workdir={work}"
            kernel.mount("software", root + directory.target, "overlay", 0, options)
        else:
            kernel.bind(source, root + directory.target)
    kernel.enter_root(root)
