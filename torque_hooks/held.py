"""What became of jobs that we held: neither their deletion nor their release is reported to us."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from torque_hooks.asking import qstat_of
from torque_hooks.settings import TorqueConfig
from udi.command import Deadline
from udiroot.errors import UdiError

Fate = Literal["held", "released", "ended"]
_HELD, _COMPLETE = b"<job_state>H</job_state>", b"<job_state>C</job_state>"
"""As qstat writes it; what users chose is escaped in it, so they cannot write it (cray-reference T41)."""


def fates(torque: TorqueConfig, jobs: Iterable[str], deadline: Deadline) -> Mapping[str, Fate]:
    """What Torque says of each job: where it says nothing in time, the job counts as still held."""
    return {job: _fate(torque, job, deadline) for job in jobs}


def _fate(torque: TorqueConfig, job: str, deadline: Deadline) -> Fate:
    try:
        done = qstat_of(torque, job, deadline)
    except UdiError:
        return "held"
    if done is None or _COMPLETE in done.stdout:
        return "ended"
    if done.exit_code or b"</Job>" not in done.stdout or _HELD in done.stdout:
        return "held"
    return "released"
