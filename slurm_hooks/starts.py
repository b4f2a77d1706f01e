"""What becomes of a job whose start failed through no fault of its user: queued again, and held after some failures.

Each node of a job counts for itself, and all must come to one number. So the count is where all nodes and every
operator see it, in the job's administrative comment at slurmctld, which must be reached anyway:

    shifter-xc: start 3 failed (2 in a row): reason
    shifter-xc: start 4 failed (3 in a row, held): reason

`start` is Slurm's own count of restarts. It rises with every start, whatever the cause, so that a failure counts
once however many nodes report it, and only failures of starts that follow each other are added. A job that we held
and that starts again was released by a person: all its starts are before it again. What a site has in the comment stays
before ours.
"""

from __future__ import annotations

import logging
import re

from jobs import metrics
from jobs.tries import AnotherStartWouldHarm
from slurm_hooks.commands import REASON, QueuedJob, Slurm
from udi.command import Deadline
from udi.log import plain
from udi.values import Frozen
from udiroot.errors import UdiError, counted
from udiroot.fields import number

_log = logging.getLogger("udi.slurm")
_COMMENT = re.compile(rf"(?:; )?{REASON}start ([0-9]+) failed \(([0-9]+) in a row(, held)?\): .*", re.DOTALL)
_STARTED = ("RUNNING", "CONFIGURING", "SUSPENDED")


class Failures(Frozen):
    """So many starts failed in a row, the last of them `start`."""

    start: int
    count: int
    is_held: bool

    def followed_by(self, start: int, most: int) -> Failures:
        """After another start that failed; the same, where this one is counted already."""
        if start == self.start:
            return self
        count = self.count + 1 if start == self.start + 1 and not self.is_held else 1
        return Failures(start, count, count >= most)

    def text(self, why: str) -> str:
        """As the comment has it."""
        return f"{REASON}start {self.start} failed ({self.count} in a row{', held' if self.is_held else ''}): {why}"


NONE = Failures(-2, 0, False)


def failures_in(comment: str) -> tuple[str, Failures]:
    """What a site has in a job's comment, and the failures that we wrote behind it."""
    found = _COMMENT.search(comment)
    if found is None:
        return comment, NONE
    start, count = number(found[1]), number(found[2])
    return comment[: found.start()], Failures(start, count, bool(found[3])) if start >= 0 and count > 0 else NONE


def send_back(slurm: Slurm, job: str, start: int, most: int, error: UdiError, deadline: Deadline) -> str:
    """Count the failed start and send the job back, or hold it after `most` in a row, or at once where another start
    would harm; what became of it, in words.

    Nothing is done to a job that another node has sent back meanwhile. Where Slurm cannot be reached, or does not take
    the job back, the job ends when its first task is refused.
    """
    try:
        queued = slurm.job(job, deadline)
        if queued and queued.is_component:  # failures of all components are counted in one place
            queued = slurm.job(queued.name, deadline)
        if queued is None or queued.restarts != start or queued.state not in _STARTED:
            metrics.started("requeued")  # by another of its nodes
            return "the job has ended, or was requeued"
        allowed = 1 if isinstance(error, AnotherStartWouldHarm) else most
        return _send_back(slurm, queued, start, allowed, error, deadline)
    except UdiError as refused:
        _log.error("the job could not be sent back: %s", refused.message)
        metrics.started("ended")
        return "the job ends, since it cannot be queued again"


def _send_back(slurm: Slurm, queued: QueuedJob, start: int, most: int, error: UdiError, deadline: Deadline) -> str:
    others, before = failures_in(queued.comment)
    now = before.followed_by(start, most)
    if now != before:
        text = now.text(plain(error.message, 400))
        slurm.comment(queued.name, f"{others}; {text}" if others else text, deadline)
    if now.is_held:
        slurm.requeue_held(queued.name, deadline)
        metrics.started("held")
        _log.error("held after %s in a row: %s", counted(now.count, "failed start"), error.message)
        return f"job held after {counted(now.count, 'failed start')}"
    slurm.requeue(queued.name, deadline)
    metrics.started("requeued")
    return "job requeued"
