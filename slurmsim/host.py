"""A host of the cluster: an init in namespaces of its own, with a private overlay over the machine's root.

Nothing is recorded: a host lives as long as its init, which the kernel kills when its starter dies.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from udiroot.errors import SetupFailed
from xcsim import kernel
from xcsim.loops import of_node
from xcsim.processes import children

_START_SECONDS = 20.0
_STOP_SECONDS = 10.0
_NAMESPACES = (
    "unshare",
    "--mount",
    "--uts",
    "--ipc",
    "--net",
    "--pid",
    "--fork",
    "--kill-child",
    "--propagation",
    "private",
)
_ROOT = """
set -e
mount -t tmpfs -o mode=0755 changes /mnt
mkdir /mnt/upper /mnt/work /mnt/root /mnt/shared
{shared}
mount -t overlay -o lowerdir={lower},upperdir=/mnt/upper,workdir=/mnt/work root /mnt/root
cd /mnt/root
mount -t proc -o nosuid,nodev,noexec proc proc
mount --rbind /sys sys
mount --rbind /dev dev
for place in run tmp var/tmp var/spool dev/shm; do mkdir -p $place; mount -t tmpfs -o mode=0755 $place $place; done
chmod 1777 tmp var/tmp dev/shm
{binds}
hostname {name}
ip link set lo up
pivot_root . mnt
umount -l /mnt
cd /
# Orphans are adopted by this shell, which takes notice of their exit.
exec /bin/bash -c 'sleep infinity & trap : TERM; echo up; exec >&- 2>&-; while :; do wait; done' >&3
"""


@dataclass
class Host:
    """A host called `name`, in a domain where one is given. `shared` are directories of the machine and where the host
    has them; `lower` is the root that its own overlays."""

    name: str
    shared: Mapping[str, str]
    domain: str = ""
    lower: str = "/"
    _starter: subprocess.Popen[bytes] | None = field(default=None, init=False)
    pid: int = field(default=0, init=False)
    """That of its init, as the machine sees it."""

    def start(self, inside: Host | None = None) -> None:
        """Start it, in the process namespace of another host where one is given. Raises SetupFailed."""
        opened = [
            f"mkdir -p /mnt/shared/{n} && mount --bind {source} /mnt/shared/{n}" for n, source in enumerate(self.shared)
        ]
        binds = [
            f"mkdir -p .{target} && mount --bind /mnt/shared/{n} .{target}"
            for n, target in enumerate(self.shared.values())
        ]
        called = f"{self.name}.{self.domain}" if self.domain else self.name
        script = _ROOT.format(name=called, lower=self.lower, shared="\n".join(opened), binds="\n".join(binds))
        reader, writer = os.pipe()
        within = [] if inside is None else ["nsenter", f"--target={inside.pid}", "--pid"]
        words = [*within, *_NAMESPACES, "bash", "-c", f"exec 3>&{writer}\n{script}"]
        self._starter = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=writer,
            pass_fds=(writer,),
            cwd="/",
            preexec_fn=lambda: kernel.die_with_parent(signal.SIGKILL),
        )
        os.close(writer)
        with os.fdopen(reader) as report:
            said = report.readline().strip()
            if said != "up":
                raise SetupFailed(f"host {self.name} did not start: {said or 'no reason given'}")
        self.pid = self._init(2 if inside else 1)

    def _init(self, depth: int) -> int:
        assert self._starter
        pid = self._starter.pid
        for _ in range(depth):
            pid = next(iter(children(pid)))
        return pid

    def stop(self) -> None:
        """End everything in it; safe to repeat."""
        if self._starter is None:
            return
        bound = of_node(self.pid) if self.pid else []
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self._starter.kill()
        self._starter.wait()
        self._starter, self.pid = None, 0
        for one in bound:
            one.end(_STOP_SECONDS)

    def words(self, argv: Sequence[str], *, uid: int = 0, groups: Sequence[int] = (), cwd: str = "/") -> list[str]:
        """What runs a program in the host as an account."""
        entry = ["nsenter", f"--target={self.pid}", "--mount", "--uts", "--ipc", "--net", "--pid", f"--wdns={cwd}"]
        if not uid:
            return [*entry, *argv]
        chosen = f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups"
        return [*entry, "setpriv", f"--reuid={uid}", f"--regid={uid}", chosen, *argv]

    def popen(self, argv: Sequence[str], *, env: Mapping[str, str], **more: Any) -> subprocess.Popen[str]:
        """Start a program in the host; `more` is for `words` and for Popen."""
        entry = {key: more.pop(key) for key in ("uid", "groups", "cwd") if key in more}
        return subprocess.Popen(self.words(argv, **entry), env=dict(env), text=True, **more)

    def run(
        self,
        argv: Sequence[str],
        *,
        input: str = "",
        check: bool = True,
        timeout: float = 120.0,
        env: Mapping[str, str],
        **entry: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in the host to its end, its output captured. With `check`, raises SetupFailed."""
        done = subprocess.run(
            self.words(argv, **entry),
            input=input,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=dict(env),
            check=False,
        )
        if check and done.returncode:
            raise SetupFailed(f"{' '.join(argv)}: {(done.stderr or done.stdout).strip() or done.returncode}")
        return done

    def path(self, inside: str) -> Path:
        """Where the machine finds a file of the host."""
        return Path(f"/proc/{self.pid}/root{inside}")
