"""Faults in the middle of set-up and teardown.

The node software is started by a line that counts every call that changes the node, and at a chosen one fails it, stops
the process there, kills it just before or just after, or lets its alarm come just after.

The software itself is the shipped zip, untouched; only the start line differs from the one in production. The same line
can make the kernel an old one, by refusing the calls that it lacks, and gives it modules, which the kernel of a test
machine may not have: a file of the form of /proc/modules, changed where the system call would be made.
"""

from __future__ import annotations

import errno
import secrets
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.node.rig import IDENTITY_FILE, Rig
from udiroot.plan import NodePlan
from udiroot.report import NodeReport

MODULES = "/etc/xcsim/modules"
"""The modules of a node's simulated kernel."""
KRSIP = "/etc/xcsim/krsip"
"""The node's simulated switch of realm-specific IP."""

KERNELS = {
    "new": (),
    "without mount_setattr": ("mount_setattr",),
    "without overlay": ("overlay",),
    "without O_TMPFILE": ("O_TMPFILE",),
    "with a simple overlay": ("overlay options",),
    "without LOOP_CONFIGURE": ("LOOP_CONFIGURE",),
    "old": (
        "overlay", "O_TMPFILE", "open_tree", "mount_setattr", "move_mount", "open_in_root", "LOOP_CONFIGURE",
        "loop-control", "pidfd_open",
    ),
}  # fmt: skip
"""Name of a kernel → what it lacks."""
_LACKS = KERNELS | {"without leases": ("O_TMPFILE", "leases")}
"""Also one whose file systems are no place for a cache."""

ERRNOS = {
    "umount": (errno.EBUSY, errno.EINVAL, errno.ENOENT, errno.EIO),
    "ioctl": (errno.EBUSY, errno.EAGAIN, errno.ENXIO, errno.EINVAL, errno.ENOTTY, errno.EIO),
    "open_tree": (errno.ENOSYS, errno.EIO),
    "mount_setattr": (errno.ENOSYS, errno.EIO),
    "move_mount": (errno.ENOSYS, errno.EIO),
    "open_in_root": (errno.ENOSYS, errno.ENOENT, errno.EIO),
    "mkdir": (errno.EEXIST, errno.ENOSPC),
    "rmdir": (errno.ENOENT, errno.ENOTEMPTY, errno.EBUSY, errno.EIO),
    "link": (errno.EEXIST, errno.EIO),
    "open": (errno.EEXIST, errno.ENXIO, errno.EIO),
    "flock": (errno.EWOULDBLOCK,),
    "load_module": (errno.EEXIST, errno.EIO),
    "delete_module": (errno.EWOULDBLOCK, errno.ENOENT, errno.EIO),
    "write": (errno.ENOSPC,),
}
"""For each call the errnos that the code treats differently, and one that it does not expect. Others get only EIO.

Where an errno means that another program was faster (EEXIST of mkdir, EINVAL of umount), the call is made, and then
fails as if the other program had made it.
"""

_SHIM = """
import os, sys
sys.path.insert(0, {archive!r})
import bundle
bundle.install({archive!r})
import fcntl
import udiroot.kernel as kernel
import udiroot.smallfile as smallfile
point, mode, number, lacks, table, who = {point}, {mode!r}, {number}, {lacks!r}, {table!r}, {who!r}
names, struck = [], who == "parent"
faster = dict(umount=(2, 22), mkdir=(17,), rmdir=(2,), open=(17,), link=(17,), load_module=(17,), delete_module=(2,))
def is_change(name, args):
    if name == "open":
        return mode == "late" or args[1] & (os.O_CREAT | os.O_RDWR | os.O_WRONLY)
    if name == "write":
        return args[0] > 2
    return name != "ioctl" or args[1] != 0x4C05
def is_lacking(name, args):
    if name == "mount":
        return args[2:3] == ("overlay",) and ("overlay" in lacks or "overlay options" in lacks and "xino" in args[4])
    if name == "ioctl":
        return args[1] == 0x4C0A and "LOOP_CONFIGURE" in lacks
    if name == "fcntl":
        return args[1] == 1024 and "leases" in lacks
    if name == "open" and "O_TMPFILE" in lacks and args[1] & 0o20000000:
        return True
    return name in lacks or name == "open" and args[0] == "/dev/loop-control" and "loop-control" in lacks
def watched(module, name):
    real = getattr(module, name)
    def call(*args, **kwargs):
        if is_lacking(name, args):
            lacking = {{"ioctl": 22, "fcntl": 22, "open": 2, "mount": 19 if "overlay" in lacks else 22}}.get(name, 38)
            raise OSError(lacking, os.strerror(lacking), name)
        if not is_change(name, args):
            return real(*args, **kwargs)
        names.append(name)
        if name == "fork":
            return fork(real)
        if len(names) != point or not struck:
            return real(*args, **kwargs)
        if mode == "fail":
            if number in faster.get(name, ()):
                made = real(*args, **kwargs)
                if name == "open":
                    os.close(made)
            raise OSError(number, os.strerror(number), "injected at " + name)
        if mode == "stop":
            os.kill(os.getpid(), 19)
            return real(*args, **kwargs)
        if mode == "before":
            os.kill(os.getpid(), 9)
        try:
            return real(*args, **kwargs)
        finally:
            os.kill(os.getpid(), 14 if mode == "late" else 9)
    setattr(module, name, call)
def fork(real):
    global struck
    here = len(names) == point and struck
    if here and mode == "fail":
        raise OSError(number, os.strerror(number), "injected at fork")
    if here and mode == "before":
        os.kill(os.getpid(), 9)
    child = real()
    if child == 0:
        names.clear()
        struck = who == "child"
    elif here:
        os.kill(os.getpid(), 9)
    return child
def rows():
    try:
        return [row for row in real_read(table).decode().split("\\n") if row]
    except FileNotFoundError:
        return []
def put(rows):
    with open(table, "w") as stream:
        stream.writelines(row + "\\n" for row in rows)
def load_module(descriptor, path):
    name = path.rpartition("/")[2].partition(".")[0].replace("-", "_")
    if any(row.split()[0] == name for row in rows()):
        raise OSError(17, "File exists", path)
    put([name + " 16384 0 - Live 0x0", *rows()])
def delete_module(name):
    row = [row for row in rows() if row.split()[0] == name][0]
    if row.split()[2] != "0":
        raise OSError(11, "Resource temporarily unavailable", name)
    put([other for other in rows() if other != row])
real_read = smallfile.read
def read(path):
    return real_read(path) if path != "/proc/modules" else ("\\n".join(rows()) + "\\n").encode()
smallfile.read, kernel.load_module, kernel.delete_module = read, load_module, delete_module
for module, words in (
    (kernel, "mount umount open_tree mount_setattr move_mount open_in_root load_module delete_module"),
    (os, "mkdir rmdir link unlink symlink rename open write fork posix_spawn pidfd_open"
    " truncate pwrite chroot kill setgroups waitpid setresgid setresuid execve"),
    (fcntl, "ioctl flock fcntl"),
):
    for word in words.split():
        watched(module, word)
import udiroot.commands
code = udiroot.commands.run(sys.argv[1:])
sys.stderr.write("POINTS " + " ".join(names) + "\\n")
sys.stderr.flush()
os._exit(code)
"""


@dataclass(frozen=True)
class Fault:
    """What happens at call `point` (0: nothing): it fails with errno `number`, or the process is stopped there, or
    killed `before` or `after` it, or its alarm comes when the call was made, whether it failed or not (`late`: each
    open(2) is a point then). `kernel` is one of KERNELS, or `without leases`. `who` is the `parent`, whose child
    continues alone, or the `child` that it forks, whose calls are counted from 1 again."""

    point: int = 0
    mode: str = "none"
    number: int = 0
    kernel: str = "new"
    who: str = "parent"


@dataclass(frozen=True)
class Outcome:
    """How a run with a fault ended: the calls that were passed (none when killed), and the report if there was one."""

    calls: tuple[str, ...]
    report: NodeReport | None
    killed: bool
    trace: str = field(repr=False)


def faults_of(calls: tuple[str, ...], kernel: str) -> Iterator[Fault]:
    """Every fault that a run with these calls can meet."""
    for point, name in enumerate(calls, 1):
        yield Fault(point, "before", kernel=kernel)
        yield Fault(point, "after", kernel=kernel)
        for number in ERRNOS.get(name, (errno.EIO,)):
            yield Fault(point, "fail", number, kernel)


def set_up(rig: Rig, plan: NodePlan, fault: Fault | None = None) -> Outcome:
    """setupRoot with a fault."""
    command, nonce = set_up_command(rig, plan, fault)
    return _run(rig, command, nonce)


def set_up_command(rig: Rig, plan: NodePlan, fault: Fault | None = None) -> tuple[list[str], str]:
    """What starts setupRoot with a fault on the node, and the nonce of its report."""
    path, sha256 = rig.send(plan)
    nonce = secrets.token_hex(16)
    words = ["setupRoot", "--run", plan.run, "--nid-file", IDENTITY_FILE, path, sha256, nonce]
    return _command(rig, words, fault or Fault()), nonce


def tear_down(rig: Rig, job: str, fault: Fault | None = None, plan: NodePlan | None = None) -> Outcome:
    """unsetupRoot with a fault; where it is that of a `plan`, its own root and run directory."""
    nonce = secrets.token_hex(16)
    root, run = (plan.root, plan.run) if plan else (rig.site.node.root, rig.site.node.run)
    words = ["unsetupRoot", "--root", root, "--run", run, "--nid-file", IDENTITY_FILE]
    words += ["--shared", "yes" if plan else "no", "--job", job, nonce]
    return _run(rig, _command(rig, words, fault or Fault()), nonce)


def node_file(rig: Rig, path: str) -> Path:
    """A file of the node's own root, as the host finds it."""
    return rig.node.path(path)


def _command(rig: Rig, words: list[str], fault: Fault) -> list[str]:
    shim = _SHIM.format(
        archive=rig.site.node.zip,
        point=fault.point,
        mode=fault.mode,
        number=fault.number,
        lacks=_LACKS[fault.kernel],
        table=MODULES,
        who=fault.who,
    )
    return ["/bin/sh", "-c", shlex.join((*rig.site.node.python, "-I", "-S", "-c", shim, *words))]


def _run(rig: Rig, command: list[str], nonce: str) -> Outcome:
    return outcome(rig.node.run(command), nonce)


def outcome(done: subprocess.CompletedProcess[str], nonce: str) -> Outcome:
    """The outcome of a finished run with a fault."""
    reports = [report for line in done.stdout.splitlines() if (report := NodeReport.parse(line, nonce))]
    calls = [tuple(line.split()[1:]) for line in done.stderr.splitlines() if line.startswith("POINTS ")]
    return Outcome(
        calls[0] if calls else (), reports[0] if reports else None, done.returncode in (-9, 137), done.stderr
    )
