"""Bringing a drained node back: what jobs left is taken down on the node itself, and only a clean node is resumed."""

from __future__ import annotations

import logging

from jobs.local import LocalJob
from jobs.notes import Notes
from slurm_hooks.commands import REASON, Slurm
from slurm_hooks.leaks import examine, in_words, is_at_work
from slurm_hooks.settings import SlurmConfig
from slurm_hooks.steps import jobs_with_steps
from udi.command import Deadline
from udi.config import SiteConfig
from udiroot.errors import TeardownIncomplete, UdiError

_log = logging.getLogger("udi.slurm")
_SLURMS_OWN = ("Prolog error", "Epilog error", "batch job complete failure", "Duplicate jobid")
"""Reasons of slurmctld's for a node whose hook was killed, or whose slurmd came back while its job was sent again. Each
is about a job that has ended there by now, and harmless once no step of such a job runs on. "Kill task failed" is not
among them: of a process that nothing could kill, only a person can say whether the node may go on.
"""


def clean_here(site: SiteConfig, node: str, deadline: Deadline) -> tuple[str, ...]:
    """On the node: take down what jobs left that no longer run here, and check that nothing is left; which jobs.

    Raises TeardownIncomplete with what is left, UpstreamFailed where Slurm does not say which jobs run.
    """
    settings = site.table(SlurmConfig)
    slurm = Slurm(settings)
    found = examine(site, slurm, node, deadline)
    failures = []
    for job in sorted(found.leaked):
        try:
            take_down_here(site, job, deadline)
        except UdiError as error:
            failures.append(f"job {job}: {error.message}")
    after = examine(site, slurm, node, deadline)
    if failures or after.leaked or after.unknown:
        raise TeardownIncomplete("; ".join(failures) or after.unknown or in_words(site, after.leaked))
    return tuple(sorted(found.leaked))


def take_down_here(site: SiteConfig, job: str, deadline: Deadline) -> None:
    """On the node: take down one job, its note included. Raises TeardownIncomplete and other UdiErrors."""
    local = LocalJob(site, job)
    with local.locked(deadline):
        local.take_down(deadline)
        Notes(site.table(SlurmConfig).notes).remove(job)
        local.forget()


def resume(site: SiteConfig, node: str, deadline: Deadline) -> str:
    """Bring this node, which is clean, back into service, where it is out of it because of us or of a job that Slurm
    has given up; why not, where it is not.

    Raises UpstreamFailed, TimedOut.
    """
    slurm = Slurm(site.table(SlurmConfig))
    state = slurm.node(node, deadline)
    if not state.is_drained:
        return ""
    if not state.reason.startswith(REASON):
        if state.reason not in _SLURMS_OWN:
            return f"drained by others: {state.reason or 'no reason is given'}"
        over = [job for job in sorted(jobs_with_steps()) if not is_at_work(slurm, job, node, deadline)]
        if over:
            return f"drained by Slurm ({state.reason}), and steps of jobs that have ended run on: {', '.join(over)}"
    slurm.resume(node, deadline)
    _log.warning("%s clean and resumed", node)
    return ""
