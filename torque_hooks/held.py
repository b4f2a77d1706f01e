"""What became of jobs that we held: neither their deletion nor their release is reported to us."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from torque_hooks.settings import TorqueConfig
from udi.command import Deadline, run
from udiroot.errors import UdiError

Fate = Literal["held", "released", "ended"]
_UNKNOWN_JOB = 153
"""15001 modulo 256 (cray-reference T46)."""
_HELD, _COMPLETE = b"<job_state>H</job_state>", b"<job_state>C</job_state>"
"""As qstat writes it; what users chose is escaped in it, so they cannot write it (T41)."""


def fates(torque: TorqueConfig, jobs: Iterable[str], deadline: Deadline) -> Mapping[str, Fate]:
    """What Torque says of each job: where it says nothing in time, the job counts as still held."""
    return {job: _fate(torque, job, deadline) for job in jobs}


def _fate(torque: TorqueConfig, job: str, deadline: Deadline) -> Fate:
    try:
        done = run([torque.qstat, "-x", job], seconds=deadline.left(torque.command_deadline))
    except UdiError:
        return "held"
    if done.exit_code == _UNKNOWN_JOB or _COMPLETE in done.stdout:
        return "ended"
    if done.exit_code or b"</Job>" not in done.stdout or _HELD in done.stdout:
        return "held"
    return "released"
