"""Everything that runs as a job's user on a node that is the job's alone: terminated by one signal after the job.

Looking for holders cannot be complete. A descriptor on its way through a socket, a socket bound in the image, a request
to the kernel hold a root without a trace in /proc, and a program that forks and exits all the time is gone whenever it
is looked at. Each of these ends with the processes of its user. The kernel sends a signal to all of them in one step,
during which none can fork.
"""

import errno
import os
import time

from udiroot import processes
from udiroot.processes import Process, Terminated

_WHY = "left running after the job"
_PATIENCE = 1.0
"""Seconds to wait for their exit; one that a file system blocks does not end before that responds."""


def terminate(uid: int, terminated: Terminated, deadline: float, *, seen_or_not: bool) -> None:
    """Kill every process whose real or saved uid is `uid`, and wait until none is left, for a second at most.

    `seen_or_not` sends the signal even where none is seen: it also reaches the user's own user namespaces, in which
    processes may have other uids. `deadline` is a time of time.monotonic(). Raises ValueError for a uid that is not a
    user's, OSError where the signal could not be sent.
    """
    if uid <= 0:
        raise ValueError(f"uid {uid} is not that of a user")
    until = min(deadline, time.monotonic() + _PATIENCE)
    signalled = False
    while True:
        found, is_sure = _look(uid)
        for process in found:
            terminated.add(process)
        if not found and (signalled or (is_sure and not seen_or_not)):
            return
        if _kill_all(uid):
            signalled = True
        else:  # they may be why: each of them is ended that was seen
            for process in found:
                processes.send_kill(process.pid, process.start)
        if time.monotonic() >= until:
            return
        time.sleep(0.002)


def _look(uid: int) -> "tuple[list[Process], bool]":
    """What kill(2) reaches from that uid, and whether that is sure to be all: not where a process has exited between
    the listing of pids and the look at it, since it may have left another.

    The effective uid does not matter: by that alone, a service of root's acts for the user.
    """
    found, is_sure = [], True
    for pid in processes.pids():
        status = processes.status(pid)
        if status is None:
            is_sure = False
        elif uid in (status.uids[0], status.uids[2]):
            start = processes.start_time(pid)
            if start >= 0:
                found.append(Process(pid, start, status.uids[0], status.name, _WHY))
            else:
                is_sure = False
    return found, is_sure


def _kill_all(uid: int) -> bool:
    """kill(-1, SIGKILL) in a child that has no right but the user's, and that the user cannot signal; False where the
    node has no process left for such a child. Raises OSError."""
    try:
        child = os.fork()
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.ENOMEM):
            return False
        raise
    if child == 0:
        _become_and_kill(uid)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise OSError(max(code, 0), os.strerror(code) if code > 0 else "child was killed", f"signal to uid {uid}")
    return True


def _become_and_kill(uid: int) -> None:
    code = 255
    try:
        from udiroot import privileges

        privileges.become_sender(uid)
        os.kill(-1, 9)
        code = 0
    except ProcessLookupError:  # they have all exited meanwhile
        code = 0
    except OSError as error:
        code = error.errno or 255
    finally:
        os._exit(code)
