"""A user's program in a root that is mounted here: as that user, without a right of root, on the caller's terminal."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from udi.accounts import Account
from udi.launch import RUN
from udi.oserrors import reason
from udi.parentdeath import die_with_caller
from udiroot.privileges import become

_FAILED = 125
"""As udi-run reports that it failed itself."""
_SHELLS = ("/bin/bash", "/bin/sh")
Limits = Mapping[int, tuple[int, int]]
"""Resource limits (getrlimit(2)) → soft and hard."""


@dataclass(frozen=True)
class Program:
    """What runs: the words for udi-run, or none for a shell. `cwd` is where it starts, as far as the root has it."""

    user: Account
    words: tuple[str, ...]
    environment: Mapping[str, str]
    cwd: str
    limits: Limits


def enter(root: str, program: Program) -> int:
    """Start the program in the root; its pid. It is killed with this process, and leads no session of its own, so that
    the terminal's signals reach it."""
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        _become_program(root, program, parent)
    return child


def _become_program(root: str, program: Program, parent: int) -> None:
    """In the child: never returns."""
    try:
        os.closerange(3, 1 << 16)
        for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        signal.alarm(0)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.chroot(root)
        os.chdir("/")
        for limit, values in program.limits.items():
            resource.setrlimit(limit, values)
        user = program.user
        become(user.uid, user.gid, user.groups)
        die_with_caller()  # after that: becoming another user clears it
        if os.getppid() != parent:
            os._exit(_FAILED)
        with contextlib.suppress(OSError, ValueError):
            os.chdir(program.cwd or user.home)
        words = program.words or ("--", _shell(user))
        os.execve(RUN, [RUN, *words], dict(program.environment))  # noqa: S606 - it is what this child becomes
    except OSError as error:
        os.write(2, f"udi: the program cannot be started: {reason(error)}\n".encode())
    except BaseException as error:  # noqa: BLE001 - the child of a fork must not go on as its parent
        os.write(2, f"udi: internal error: {type(error).__name__}\n".encode())
    os._exit(_FAILED)


def _shell(user: Account) -> str:
    """The user's own shell, if the image has it, else what images have. Called inside the root, as the user."""
    return next((path for path in (user.shell, *_SHELLS) if os.access(path, os.X_OK)), _SHELLS[-1])
