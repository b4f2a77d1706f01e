"""Holding a job by `qhold`, so that Torque does not start it again at once and for ever."""

from __future__ import annotations

from torque_hooks.settings import TorqueConfig
from udi.command import run


class Torque:
    """Torque as `jobs` needs it (`jobs.tries.WorkloadManager`)."""

    def __init__(self, settings: TorqueConfig) -> None:
        self._settings = settings

    def hold(self, job: str) -> None:
        """Place a system hold: the site must act first. It takes effect when the prologue's exit code requeues the job.

        Raises UpstreamFailed, TimedOut.
        """
        run([self._settings.qhold, "-h", "s", job], seconds=self._settings.command_deadline).require_success()
