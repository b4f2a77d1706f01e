"""Asking Torque about one job, by `qstat -x`."""

from __future__ import annotations

from torque_hooks.settings import TorqueConfig
from udi.command import Deadline, Finished, run

_UNKNOWN_JOB = 153
"""15001 modulo 256 (cray-reference T46)."""


def qstat_of(torque: TorqueConfig, job: str, deadline: Deadline) -> Finished | None:
    """What `qstat -x` printed, with its exit code; None where Torque knows no such job.

    Raises UpstreamFailed, TimedOut.
    """
    done = run([torque.qstat, "-x", job], seconds=deadline.left(torque.command_deadline))
    return None if done.exit_code == _UNKNOWN_JOB else done
