"""A group of processes that the kernel kills when this process is no more, however it ends.

This process has both ends of a pipe, and nobody else does. When it ends, the kernel closes one of them and then the
other; the first tells the owner of the second, by the signal that was asked for (pipe_release in fs/pipe.c, send_sigio
in fs/fcntl.c, since Linux 2.6). Here the owner is the group and the signal is SIGKILL. Which end is the first differs
between kernels, so both are armed.

For prctl(PR_SET_PDEATHSIG), the usual way, code must run in the child between fork and exec. `subprocess` copies the
process then, which costs a hook 3 ms for each command; otherwise it can use vfork. This way also reaches children of
the command, does not end with the thread that started it, and is not lost when the command becomes another user: the
kernel permits what kill(2) would (sigio_perm in fs/fcntl.c), and to the host's root everything. The kernel knows the
group as such, so that another one that gets its number later is safe.

What it does not reach: processes that have left the group, and a command whose starter is killed before `tie`, in the
first one or two milliseconds, longer where other threads keep the interpreter busy. (PR_SET_PDEATHSIG has such a
moment, too, from fork until the child has asked.) A process that was forked meanwhile and has executed nothing has the
pipe as well, and the command lives as long as that one.
"""

from __future__ import annotations

import fcntl
import os
import signal


class Tether:
    """Ties one process group to this process. When it is closed, or lost, the group is killed as well."""

    def __init__(self) -> None:
        reader, writer = os.pipe()
        # Files, so that an exception that loses them closes them.
        self._ends = (open(reader, "rb", buffering=0), open(writer, "wb", buffering=0))
        for end in self._ends:
            fcntl.fcntl(end, fcntl.F_SETSIG, signal.SIGKILL)
            fcntl.fcntl(end, fcntl.F_SETFL, os.O_ASYNC)  # while there is no owner, nobody gets the signal

    def tie(self, group: int) -> None:
        """From here on. Its leader must not have been waited for, so that the number is still its own."""
        for end in self._ends:
            fcntl.fcntl(end, fcntl.F_SETOWN, -group)

    def close(self) -> None:
        """Kill what is left of the group, if one is tied."""
        for end in self._ends:
            end.close()
