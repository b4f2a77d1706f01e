"""How a program gets into a node: the step between fork and exec.

A pid namespace is entered by a child only, so the process that a caller holds stays outside, stands for the program
(same exit status, signals passed on), and takes it along when it is killed.
"""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

from xcsim import kernel
from xcsim.processes import NAMESPACES

_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


@dataclass(frozen=True)
class Entry:
    """As whom, and where inside the node, a program starts."""

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
        # All are opened first: /proc of the node numbers processes in another way.
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
    """Root folder, user, groups, working directory; in the order in which each is still allowed."""
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
        os.chdir("/")  # a node need not have the folder; apinit starts the program all the same


def _stand_for(program: int) -> None:
    """Outside the node: hold no descriptor, pass signals on, end as the program ends."""
    os.closerange(0, 1 << 20)

    def pass_on(number: int, _: FrameType | None) -> None:
        os.kill(program, number)

    for number in _PASSED_ON:
        signal.signal(number, pass_on)
    status = os.waitpid(program, 0)[1]
    if os.WIFSIGNALED(status):
        ending = os.WTERMSIG(status)
        if ending != signal.SIGKILL:
            signal.signal(ending, signal.SIG_DFL)
        os.kill(os.getpid(), ending)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
