"""A job's script, as Torque keeps it: it holds the lines of the submit filter, and is user text for the rest."""

from __future__ import annotations

import os
import stat

from torque_hooks.settings import TorqueConfig
from udi.oserrors import reason
from udiroot.errors import UpstreamFailed

_MAX_BYTES = 1 << 20


def script_of(torque: TorqueConfig, job: str) -> str:
    """Where a Torque that does not pass the script's path keeps it (torque-reference a); empty where there is none.

    That of a task of an array, `12[3].sdb`, is `12-3.sdb.SC` (torque-reference i).
    """
    prefix = job.replace("[", "-").replace("]", "")
    path = f"{torque.mom_priv}/jobs/{prefix}.SC"
    return path if os.path.exists(path) else ""


def script_text(path: str) -> bytes:
    """The job script's beginning; empty where Torque names none, or none exists. Raises UpstreamFailed."""
    if not path:
        return b""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise UpstreamFailed(f"the job's script {path} cannot be read: {reason(error)}") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UpstreamFailed(f"the job's script {path} is not a regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            return stream.read(_MAX_BYTES)
    except OSError as error:
        raise UpstreamFailed(f"the job's script {path} cannot be read: {reason(error)}") from error
    finally:
        os.close(descriptor)
