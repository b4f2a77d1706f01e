"""Holding a job by `qhold`, so that Torque does not start it again at once and for ever."""

from __future__ import annotations

from udi.command import run
from udi.config import SiteConfig


class Torque:
    """Torque as `jobs` needs it (`jobs.tries.WorkloadManager`)."""

    def __init__(self, site: SiteConfig) -> None:
        self._site = site

    def hold(self, job: str) -> None:
        """A system hold: the site must act first. It takes effect when the prologue's exit code requeues the job."""
        torque = self._site.torque
        run([torque.qhold, "-h", "s", job], seconds=torque.command_deadline).require_success()
