"""Taking a job down: from its own state alone, any number of times, and with a verdict for every node.

The plan is removed first: a setup that is still under way somewhere then finds none. Nodes that fail, or never answer,
are taken out of service with the reason kept; after that the state is no longer needed, and is removed. Where too many
fail at once (`nodehealth.out_of_service.too_many`), none is taken. Nothing of that needs a disk that takes data; but
where the reasons cannot be kept, the state stays.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence

from jobs import metrics
from jobs.nodereports import TEARDOWN, keep_reports, log_remarks
from jobs.planfile import remove_plan
from jobs.state import PLANNED, READY, TAKING_DOWN, JobDirectory, JobState
from nodehealth.out_of_service import leave_in_service, take_out_of_service, too_many
from nodehealth.records import NotRecorded, has_record
from udi.command import Deadline
from udi.config import SiteConfig
from udi.logformat import event
from udi.nodecommand import teardown_command, with_nonce
from udi.nodes import Node, in_brief
from udi.platform import Machine
from udi.values import Frozen, field, replace
from udiroot.errors import UdiError, UpstreamFailed
from udiroot.report import UNREAD

_log = logging.getLogger("udi.jobs")
_USUAL = "clean"
"""What a node's teardown says where it had to terminate nothing."""
_AIMS = {False: "taken out of service", True: "recorded"}
"""What is to become of dirty nodes, by whether they are spared."""


class Takedown(Frozen):
    """What a takedown left: nodes that stay dirty, and why. `error` is why they could not be taken out of service, or
    the reasons not be kept; `spared` is why they were left in service on purpose. `unread` is the image of which no
    node has read anything."""

    dirty: Mapping[Node, str] = field(default_factory=dict)
    error: UdiError | None = None
    spared: str = ""
    unread: str = ""

    @property
    def is_clean(self) -> bool:
        return not self.dirty and self.error is None

    @property
    def is_out_of_service(self) -> bool:
        """Whether the dirty nodes are out of service, with their reasons on record or not."""
        return not self.spared and (self.error is None or isinstance(self.error, NotRecorded))


def take_down(site: SiteConfig, machine: Machine, job: str, deadline: Deadline, nodes: Sequence[Node] = ()) -> Takedown:
    """Take the job down wherever its state says it is, and on `nodes` that a person names, who knows more than a state
    that is damaged or lost; a job without either needs nothing.

    Raises TimedOut when another hook keeps the job locked, UpstreamFailed for a state that cannot be read: the state
    then still exists.
    """
    directory = JobDirectory(site, job)
    if not directory.exists and not nodes:
        return Takedown()
    with directory.locked(deadline):
        done = take_down_locked(site, machine, directory, deadline, nodes)
        directory.remove_if_over()
    return done


def take_down_locked(
    site: SiteConfig, machine: Machine, directory: JobDirectory, deadline: Deadline, nodes: Sequence[Node] = ()
) -> Takedown:
    """The same, for the one who holds the job's lock already, and keeps the directory that it is on."""
    state = _known(directory, nodes)
    if state is None:
        return Takedown()
    touched = state.phase != PLANNED
    _save_if_possible(directory, replace(state, phase=TAKING_DOWN) if touched else state)
    _drop_plan(site, state)
    done = _tear_down(site, machine, state, directory.path, deadline) if touched else Takedown()
    dirty, spared = done.dirty, done.spared
    error = _out_of_service(site, machine, state.job, dirty, spared, deadline)
    if touched:
        metrics.count(metrics.ENDS, "dirty" if dirty else "clean")
    if all(has_record(site, node) for node in dirty):
        directory.forget()
    if touched:
        where, left = in_brief(state.nodes), in_brief(dirty)
        counts = {"count": len(state.nodes), "dirty_count": len(dirty)}
        fields = event(TEARDOWN, message="taken down", nodes=where, dirty=left, **counts)
        _log.info("taken down on %s%s", where, f"; dirty: {left}" if dirty else "", extra=fields)
    return replace(done, error=error)


def _known(directory: JobDirectory, nodes: Sequence[Node]) -> JobState | None:
    """The job's state, with the `nodes` that a person names; of a state that is damaged or lost, these are all."""
    try:
        state = directory.load()
    except UpstreamFailed:
        if not nodes:
            raise
        state = None
    if not nodes:
        return state
    every = tuple(sorted({*nodes, *(state.nodes if state else ())}))
    if state:
        return replace(state, nodes=every, phase=TAKING_DOWN)
    return JobState(directory.job, "", "", "", "", every, plan="", phase=TAKING_DOWN, since=int(time.time()))


def _save_if_possible(directory: JobDirectory, state: JobState) -> None:
    """A disk that is full keeps no node from being cleaned: the earlier state says enough."""
    try:
        directory.save(state)
    except UdiError as error:
        _log.error("%s", error.message)


def _drop_plan(site: SiteConfig, state: JobState) -> None:
    """A plan that cannot be removed does no harm: it is private, and names the job's own image."""
    try:
        if state.plan:
            remove_plan(site, state.plan)
    except UdiError as error:
        _log.error("%s", error.message)


def _tear_down(site: SiteConfig, machine: Machine, state: JobState, directory: str, deadline: Deadline) -> Takedown:
    """Run the teardown on all nodes."""
    began = time.monotonic()
    nonce = os.urandom(16).hex()
    time_for_marking = min(machine.command_deadline, deadline.left() / 4)
    enough = Deadline(deadline.left() - time_for_marking)
    try:
        kept = with_nonce(state.teardown, nonce)
        command_line = kept or teardown_command(site, machine.identity_file(), state.job, nonce)
        result = machine.run(state.nodes, command_line, nonce, enough, directory)
    except UdiError as error:
        # Nothing was run, on no node, so it is no fault of the nodes.
        why = f"teardown of job {state.job} not run: {error.message}"
        return Takedown(dict.fromkeys(state.nodes, why), spared=error.message)
    metrics.observe(metrics.JOB_TEARDOWN, [time.monotonic() - began])
    metrics.observe_nodes(metrics.NODE_TEARDOWN, result.reports.values())
    log_remarks(TEARDOWN, result, _USUAL)
    if not result.ok:
        keep_reports(site, state.job, TEARDOWN, result)
    dirty = {node: f"teardown of job {state.job}: {reason}" for node, reason in result.errors().items()}
    unread = state.phase == READY and result.ok and all(UNREAD in report.left for report in result.reports.values())
    return Takedown(dirty, spared=too_many(site, result), unread=state.image if unread else "")


def _out_of_service(
    site: SiteConfig, machine: Machine, job: str, dirty: Mapping[Node, str], spared: str, deadline: Deadline
) -> UdiError | None:
    """Mark dirty nodes, with some seconds of its own where the deadline has none left: this must be tried."""
    try:
        if spared:
            leave_in_service(site, job, dirty, f"teardown of job {job}: {spared}")
        else:
            take_out_of_service(site, machine, job, dirty, Deadline(max(5.0, deadline.left())))
            metrics.count(metrics.TAKEN_OUT, by=len(dirty))
    except UdiError as error:
        if not isinstance(error, NotRecorded) or spared:
            _log.error("%s could not be %s: %s", in_brief(dirty), _AIMS[bool(spared)], error.message)
        return error
    return None
