"""Taking a job down: from its own state alone, any number of times, and with a word for every node.

The plan goes first: a set-up that is still under way somewhere then finds none. Nodes that fail, or never answer, are
set admindown with the reason kept; after that the state has served, and goes.
"""

from __future__ import annotations

import dataclasses
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from alps.fanout import fan_out
from alps.nids import folded
from jobs.planfile import remove_plan
from jobs.state import PLANNED, TAKING_DOWN, JobFolder, JobState
from nodehealth.out_of_service import mark_admindown
from udi.command import Deadline
from udi.config import SiteConfig
from udi.nodecommand import teardown_command
from udiroot.errors import UdiError

_log = logging.getLogger("udi.jobs")


@dataclass(frozen=True)
class Takedown:
    """What a takedown left: nodes that stay dirty, and why; `trouble` where they could not be taken out of service."""

    dirty: Mapping[int, str] = field(default_factory=dict)
    trouble: UdiError | None = None

    @property
    def is_clean(self) -> bool:
        return not self.dirty and self.trouble is None


def take_down(site: SiteConfig, job: str, deadline: Deadline) -> Takedown:
    """Take the job down wherever its state says it is; a job without state needs nothing.

    Raises TimedOut when another hook does not let go of the job, UpstreamFailed for a state that cannot be read: the
    state is then still there.
    """
    folder = JobFolder(site, job)
    if not folder.exists:
        return Takedown()
    with folder.locked(deadline):
        done = take_down_locked(site, folder, deadline)
        folder.remove()
    return done


def take_down_locked(site: SiteConfig, folder: JobFolder, deadline: Deadline) -> Takedown:
    """The same, for the one who holds the job's lock already, and keeps the folder that it is on."""
    state = folder.load()
    if state is None:
        return Takedown()
    touched = state.phase != PLANNED
    folder.save(dataclasses.replace(state, phase=TAKING_DOWN) if touched else state)
    _drop_plan(site, state)
    dirty = _troubles(site, state, folder.path, deadline) if touched else {}
    trouble = _out_of_service(site, state.job, dirty, deadline)
    folder.forget()
    if touched:
        _log.info("taken down on %s%s", folded(state.nids), f"; dirty: {folded(dirty)}" if dirty else "")
    return Takedown(dirty, trouble)


def _drop_plan(site: SiteConfig, state: JobState) -> None:
    """A plan that cannot be removed harms nobody: it is private, and names the job's own image."""
    try:
        remove_plan(site, state.plan)
    except UdiError as error:
        _log.error("%s", error.message)


def _troubles(site: SiteConfig, state: JobState, folder: str, deadline: Deadline) -> dict[int, str]:
    nonce = secrets.token_hex(16)
    time_for_marking = min(site.alps.command_deadline, deadline.left() / 4)
    enough = Deadline(deadline.left() - time_for_marking)
    try:
        result = fan_out(site, state.nids, teardown_command(site, state.job, nonce), nonce, enough, folder)
    except UdiError as error:
        return dict.fromkeys(state.nids, f"teardown of job {state.job} not run: {error.message}")
    for report in result.reports.values():
        level = logging.DEBUG if report.words == "clean" else logging.INFO
        _log.log(level, "teardown: %s: %d ms, %s", folded([report.nid]), report.milliseconds, report.words)
    return {nid: f"teardown of job {state.job}: {reason}" for nid, reason in result.troubles().items()}


def _out_of_service(site: SiteConfig, job: str, dirty: Mapping[int, str], deadline: Deadline) -> UdiError | None:
    """Mark dirty nodes, with some seconds of our own where the deadline has none left: this must be tried."""
    try:
        mark_admindown(site, job, dirty, Deadline(max(5.0, deadline.left())))
    except UdiError as error:
        _log.error("%s could not be set admindown: %s", folded(dirty), error.message)
        return error
    return None
