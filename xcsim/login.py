"""The login node, which is also the MOM node: a mount and uts namespace whose root is the machine's shared root.

The shared root is the host's own file system seen through an overlay whose changes lie on a tmpfs, so everything that
a site installs lies at its true path and the host stays untouched. Network and process numbers are the host's.
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
from xcsim.processes import ProcessId, members, namespace_of, wait_until
from xcsim.settings import STATE_INSIDE

HOLDER = ("/bin/sleep", "xcsim-login", "infinity")


@dataclass(frozen=True)
class HostFolder:
    """A folder of the host that the login node sees at a path of its own; `copied`: its changes stay on the node."""

    source: str
    target: str
    copied: bool = False


class LoginNode:
    """The login node of one machine, running or not."""

    def __init__(self, state: Path, name: str) -> None:
        self.state = state
        self.name = name

    def start(self, folders: Sequence[HostFolder]) -> "LoginNode":
        """Bring it up, unless it is; its file systems are in place when this returns."""
        if self.running:
            return self
        reader, writer = os.pipe()
        shown = (HostFolder(str(self.state), STATE_INSIDE), *folders)
        child = os.fork()
        if child == 0:
            os.close(reader)
            _become_holder(self.name, shown, writer)
        os.close(writer)
        with os.fdopen(reader) as said:
            words = said.read()
        os.waitpid(child, 0)
        pid, _, trouble = words.partition("\n")
        if trouble or not pid.isdigit():
            raise SetupFailed(f"the login node did not come up: {trouble.strip() or 'no reason given'}")
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
        """End every process of the login node, in whatever mount namespace it went on to live, then the node."""
        saved = self._saved()
        if saved is None:
            return
        holder = ProcessId(int(saved["pid"]), int(saved["start"]))
        # The kernel gives the number of a dead namespace to the next one: without its holder it proves nothing.
        certain = holder.alive
        if not wait_until(lambda: not self._kill_members(saved, certain=certain), 10.0, 0.02):
            raise SetupFailed("the login node did not go down: some of its processes do not end")
        holder.wait_gone(5.0)
        self._record.unlink(missing_ok=True)

    def _kill_members(self, saved: Mapping[str, Any], *, certain: bool) -> bool:
        """Kill what is there; True while something was. Unless `certain`, a process must also see our state folder."""
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
            raise NotFound("the machine is not up", "xcsim up brings it up")
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
        """Start a program on the login node, in a session of its own unless the entry keeps the caller's."""
        return subprocess.Popen(
            list(argv),
            env=dict(env),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=text,
            preexec_fn=entered(self.pid, entry, ("mnt", "uts")),
        )


def _become_holder(name: str, folders: Sequence[HostFolder], said: int) -> None:
    """In the forked child: make the namespace and its root, leave a holder in it, and say its pid."""
    status = 1
    try:
        kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWUTS)
        kernel.mount("none", "/", flags=kernel.MS_PRIVATE | kernel.MS_REC)
        sources = [(os.open(folder.source, os.O_PATH | os.O_DIRECTORY), folder) for folder in folders]
        os.setsid()
        os.umask(0o022)
        _enter_shared_root(sources)
        kernel.set_host_name(name)
        holder = os.fork()
        if holder == 0:
            null = os.open("/dev/null", os.O_RDWR)
            for standard in range(3):
                os.dup2(null, standard)
            os.setsid()
            os.execve(HOLDER[0], HOLDER[1:], {"PATH": "/usr/bin:/bin"})  # noqa: S606
        os.write(said, f"{holder}\n".encode())
        status = 0
    except OSError as error:
        os.write(said, f"\n{error}".encode())
    finally:
        os._exit(status)


def _enter_shared_root(sources: Sequence[tuple[int, HostFolder]]) -> None:
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
    for descriptor, folder in sources:
        os.makedirs(root + folder.target, exist_ok=True)
        source = f"/proc/self/fd/{descriptor}"
        if folder.copied:
            upper, work = f"{changes}/upper-{descriptor}", f"{changes}/work-{descriptor}"
            os.mkdir(upper, 0o755)
            os.mkdir(work, 0o755)
            options = f"lowerdir={source},upperdir={upper},workdir={work}"
            kernel.mount("software", root + folder.target, "overlay", 0, options)
        else:
            kernel.bind(source, root + folder.target)
    kernel.enter_root(root)
