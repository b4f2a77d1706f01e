"""What is left on a node of jobs that no longer run there.

Slurm says which jobs run. Where it does not answer, all of them may: nothing counts as leaked then. What is here is
looked at before Slurm is asked and again after it, since a job may start or end at any moment.
"""

from __future__ import annotations

import logging

from jobs.here import jobs_here
from jobs.local import LocalJob
from jobs.notes import Notes
from slurm_hooks.commands import ENDING, RUNNING, Slurm
from slurm_hooks.jobid import job_id
from slurm_hooks.native import is_on
from slurm_hooks.settings import SlurmConfig
from udi.command import Deadline
from udi.config import SiteConfig
from udi.values import Frozen
from udiroot.errors import UdiError, UsageError

_log = logging.getLogger("udi.slurm")


class Examined(Frozen):
    """A node's jobs with images: those that run or end, those that left something, and what prevented an answer."""

    busy: frozenset[str]
    leaked: frozenset[str]
    unknown: str = ""


def examine(site: SiteConfig, slurm: Slurm, node: str, deadline: Deadline) -> Examined:
    """Tell busy from leaked. Raises UpstreamFailed where this host cannot be examined.

    Slurm is asked for one job at a time: of several, squeue fetches those of the whole cluster, and chooses itself.
    """
    unknown = ""
    seen = suspects = _jobs(site)
    for _ in range(2):
        still: set[str] = set()
        for job in sorted(suspects & _jobs(site)):
            try:
                if not LocalJob(site, job).is_busy() and not is_at_work(slurm, job, node, deadline):
                    still.add(job)
            except UdiError as error:
                unknown = unknown or error.message
        suspects = still
    leaked = frozenset(suspects & _jobs(site))
    return Examined(frozenset(seen & _jobs(site)) - leaked, leaked, unknown)


def in_words(site: SiteConfig, jobs: frozenset[str]) -> str:
    """What is left of which jobs, for a person."""
    return "; ".join(LocalJob(site, job).remains() or f"left by {job}: note" for job in sorted(jobs))


def _jobs(site: SiteConfig) -> set[str]:
    return jobs_here(site) | Notes(site.table(SlurmConfig).notes).jobs()


def is_at_work(slurm: Slurm, job: str, node: str, deadline: Deadline) -> bool:
    """Whether a job runs on this node or has not ended there: one that is queued again ends on its old nodes first."""
    try:
        job_id(job)
    except UsageError:
        return False  # a job of another workload manager
    queued = slurm.job(job, deadline)
    if queued is None:
        return False
    return queued.state == ENDING or (queued.state in RUNNING and is_on(node, queued.nodes))
