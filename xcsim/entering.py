"""How a program gets into a node: the step between fork and exec.

Only a child can enter a pid namespace, so the process that a caller holds stays outside and stands for the program: it
has the same exit status, forwards signals, and takes the program with it when it is killed.
"""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

from xcsim import kernel
from xcsim.processes import NAMESPACES

_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


@dataclass(frozen=True)
class Entry:
    """As which user, and where inside the node, a program starts."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    root: str = "/"
    cwd: str = "/"
    umask: int = 0o022
    no_new_privileges: bool = False
    session: bool = True  # a new one; False keeps the caller's, and its terminal


def entered(pid: int, entry: Entry, namespaces: tuple[str, ...] = NAMESPACES) -> Callable[[], None]:
    """A `preexec_fn` that moves the child into the namespaces of `pid` and makes it what `entry` says."""

    def enter() -> None:
        # All are opened first: /proc of the node has other pids.
        descriptors = [os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY) for kind in namespaces]
        for descriptor in descriptors:
            kernel.setns(descriptor)
            os.close(descriptor)
        if "pid" in namespaces:
            program = os.fork()
            if program:
                _stand_for(program)
        if entry.session:
            os.setsid()
        become(entry)
        if "pid" in namespaces:
            kernel.die_with_parent(signal.SIGKILL)

    return enter


def become(entry: Entry) -> None:
    """Set root, groups, user and working directory, in the order in which each is still allowed."""
    if entry.root != "/":
        os.chroot(entry.root)
    os.chdir("/")
    os.umask(entry.umask)
    os.setgroups(entry.groups)
    os.setresgid(entry.gid, entry.gid, entry.gid)
    os.setresuid(entry.uid, entry.uid, entry.uid)
    if entry.no_new_privileges:
        kernel.no_new_privileges()
    try:
        os.chdir(entry.cwd)
    except OSError:
        os.chdir("/")  # a node need not have the directory; apinit starts the program anyway


def _stand_for(program: int) -> None:
    """Outside the node: hold no descriptor, forward signals, and exit as the program exits."""
    os.closerange(0, 1 << 20)

    def forward(number: int, _: FrameType | None) -> None:
        os.kill(program, number)

    for number in _FORWARDED:
        signal.signal(number, forward)
    status = os.waitpid(program, 0)[1]
    if os.WIFSIGNALED(status):
        ending = os.WTERMSIG(status)
        if ending != signal.SIGKILL:
            signal.signal(ending, signal.SIG_DFL)
        os.kill(os.getpid(), ending)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
