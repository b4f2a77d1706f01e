"""The one line that a user gets from a hook.

It is written to the hook's standard error, which is the job's error file. Torque does not deliver that file for a job
that a prologue aborts (torque-reference b), so the line is then also appended to the job's error path, by a child that
runs as the user. With `qsub -k` the hook's standard error is the user's own file (torque-reference h).
"""

from __future__ import annotations

import logging
import os
import signal
import stat
import time

from torque_hooks.qstat import TorqueJob
from udi.accounts import Account
from udiroot.errors import printable

_log = logging.getLogger("udi.torque")
_SECONDS = 10.0
_PAUSE = 0.02


def append_for(job: TorqueJob, user: Account, program: str, message: str) -> bool:
    """Append the line to the job's error path as the user, within seconds; whether that worked.

    Nothing is appended where standard error is a file of the user's own (`qsub -k`): it has the line already.
    """
    path = error_file(job)
    if path is None or _is_delivered(user):
        return False
    default = f"{os.path.basename(job.name) or 'job'}.{'o' if job.join == 'oe' else 'e'}{_sequence(job.id)}"
    line = f"{program}: {message}\n".encode()
    child = os.fork()
    if child == 0:
        _in_child(user, path, default, line)
    appended = _succeeds(child, time.monotonic() + _SECONDS)
    if not appended:
        _log.warning("the message to the user could not be appended to %s", printable(path))
    return appended


def _is_delivered(user: Account) -> bool:
    """Whether standard error is the user's own file, and not one in pbs_mom's spool, which is also the user's and
    called after the job: `123.sdb.ER`."""
    try:
        status = os.fstat(2)
        name = os.readlink("/proc/self/fd/2")
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_uid == user.uid and not name.endswith((".ER", ".OU"))


def error_file(job: TorqueJob) -> str | None:
    """Where Torque would deliver the job's errors; None for an interactive job, which has a terminal."""
    if job.is_interactive:
        return None
    shown = job.output_path if job.join == "oe" else job.error_path
    host, colon, path = shown.partition(":")
    if not colon or "/" in host:
        path = shown
    path = path.replace("${PBS_JOBID}", job.id).replace("$PBS_JOBID", job.id)
    directory = job.variables.get("PBS_O_WORKDIR") or job.variables.get("PBS_O_HOME") or ""
    path = os.path.join(directory, path) if path else ""
    return path if path.startswith("/") and "\0" not in path else None


def _sequence(job: str) -> str:
    number = job.split(".", 1)[0]
    return number.replace("[", "-").replace("]", "")


def _in_child(user: Account, path: str, default: str, line: bytes) -> None:
    """Become the user for good, append, and exit, whatever happens: this process must not continue as a second hook."""
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setgroups(user.groups)
        os.setgid(user.gid)
        os.setuid(user.uid)
        os.umask(0o077)
        _append(os.path.join(path, default) if os.path.isdir(path) else path, line)
        code = 0
    finally:
        os._exit(code)


def _append(path: str, line: bytes) -> None:
    """Append to a regular file: a pipe or a device that a user puts there must neither block us nor be written."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise OSError(f"{path} is not a regular file")
    os.write(descriptor, line)
    os.close(descriptor)


def _succeeds(child: int, end: float) -> bool:
    """Whether the child succeeds in time. One that hangs in a file system is killed, and not waited for."""
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(_PAUSE)
    os.kill(child, signal.SIGKILL)
    time.sleep(_PAUSE)
    os.waitpid(child, os.WNOHANG)
    return False
