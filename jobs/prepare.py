"""Preparing a job: image, nodes, plan, setup on every node; all of it or nothing.

The job's state is written before each step, so that an exit at any moment leaves what `jobs.takedown` needs. Whatever
fails after the first node was touched is undone on all nodes before the error is passed on. A node on which nothing of
the software could start has nothing to undo, and is not suspected.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jobs import metrics
from jobs.image import Choice, choose_image
from jobs.nodeerrors import EVERYWHERE, LEFT_IN_SERVICE, users_error, with_warning
from jobs.nodereports import SETUP, keep_reports, log_failures, log_stragglers, times_of
from jobs.planfile import as_node_sees, new_plan_path, write_plan
from jobs.state import PLANNED, READY, SETTING_UP, JobDirectory, JobState
from jobs.takedown import Takedown, take_down_locked
from jobs.tries import AnotherStartWouldHarm
from nodehealth.records import forget_proved_clean
from udi.command import Deadline
from udi.config import SiteConfig
from udi.fanout import FanOutResult
from udi.logformat import event
from udi.nodecommand import kept_teardown, setup_command
from udi.nodes import Node, in_brief
from udi.planning import make_plan
from udi.platform import Allocation, Host, Machine
from udi.request import JobRequest
from udi.values import Frozen, replace
from udiroot.errors import SetupFailed, UdiError, UpstreamFailed, counted
from udiroot.plan import NodePlan

if TYPE_CHECKING:
    from udi.sshkeys import SshKeys

_log = logging.getLogger("udi.jobs")
_SETUP_SHARE = 0.6
"""Of the time that is left, so that a setup which takes all of it can still be undone."""
_UNDO_SECONDS = 30
_REMEDY = f"{LEFT_IN_SERVICE}see udi-admin status, and run udi-admin recover before the job is released"


class Prepared(Frozen):
    """What was set up: on these nodes; `notice` is what the user should know."""

    nodes: tuple[Node, ...] = ()
    notice: str = ""


def prepare(
    site: SiteConfig,
    machine: Machine,
    request: JobRequest,
    hosts: Sequence[Host],
    deadline: Deadline,
    allocation: str | Allocation = "",
) -> Prepared:
    """Set up the job's root on all its nodes of `machine`; `hosts` are those that the workload manager gave the job,
    and `allocation` is what the machine calls them, where that is known, or the nodes themselves, where a person chose
    them.

    Raises the UdiError of what failed; where several nodes failed, its `owner` says who must act.
    """
    return _Preparation(site, machine, request, deadline).run(hosts, allocation)


class _Preparation:
    """One start of one job."""

    def __init__(self, site: SiteConfig, machine: Machine, request: JobRequest, deadline: Deadline) -> None:
        self._site = site
        self._machine = machine
        self._request = request
        self._deadline = deadline
        self._directory = JobDirectory(site, request.job)

    def run(self, hosts: Sequence[Host], known: str | Allocation) -> Prepared:
        began = time.monotonic()
        with self._directory.locked(self._deadline):
            try:
                self._clear_remains()
                choice = choose_image(self._site, self._request)
                allocation = self._nodes(hosts, known)
                if not allocation.nodes:
                    _log.info("no compute nodes: nothing to set up for %s", self._request.reference)
                    return Prepared()
                prepared = self._set_up(choice, allocation)
                metrics.observe(metrics.JOB_SETUP, [time.monotonic() - began])
                return prepared
            finally:
                self._directory.remove_if_over()

    def _nodes(self, hosts: Sequence[Host], known: str | Allocation) -> Allocation:
        if isinstance(known, Allocation):
            return known
        return self._machine.nodes_of(self._request.job, hosts, self._deadline, known)

    def _clear_remains(self) -> None:
        """An earlier start of the same job may have been killed: what it left goes first, on the nodes that it had."""
        state = self._directory.load()
        if state is None:
            return
        _log.warning("an earlier start of this job stopped while %s; taking it down", state.phase)
        done = take_down_locked(self._site, self._machine, self._directory, self._deadline)
        if done.spared:
            raise AnotherStartWouldHarm(
                f"an earlier start of this job left {in_brief(done.dirty)} dirty: {_first_cause(done)}", _REMEDY
            )

    def _set_up(self, choice: Choice, allocation: Allocation) -> Prepared:
        site, request = self._site, self._request
        keys = self._keys()
        plan = make_plan(site, request, choice.facts, self._machine, allocation.nodes, keys, choice.binds)
        state = JobState(
            job=request.job,
            user=request.user.name,
            image=str(request.reference),
            image_id=choice.facts.id,
            allocation=allocation.id,
            nodes=tuple(each.node for each in allocation.nodes),
            plan=new_plan_path(site, request.job),
            phase=PLANNED,
            since=int(time.time()),
            teardown=kept_teardown(site, self._machine.identity_file(), request.job),
        )
        self._directory.save(state)
        try:
            result = self._on_nodes(state, plan)
        except BaseException as error:
            # Whatever it was, a signal included: no node may keep half of a job.
            enough = Deadline(max(_UNDO_SECONDS, self._deadline.left()))
            done = take_down_locked(site, self._machine, self._directory, enough)
            if done.spared:
                message = error.message if isinstance(error, UdiError) else str(error)
                raise AnotherStartWouldHarm(message, _REMEDY) from error
            raise
        return Prepared(state.nodes, with_warning(choice.notice, result.reports.values()))

    def _keys(self) -> SshKeys | None:
        """Those of the job's private sshd, where the site has it. Root gets none."""
        if not self._site.ssh.enabled or not self._request.user.uid:
            return None
        from udi.sshkeys import make_keys

        return make_keys(self._site, self._directory.path)

    def _on_nodes(self, state: JobState, plan: NodePlan) -> FanOutResult:
        site, machine = self._site, self._machine
        sha256 = write_plan(site, state.plan, plan)
        self._directory.save(replace(state, phase=SETTING_UP))
        nonce = os.urandom(16).hex()
        command_line = setup_command(site, machine.identity_file(), as_node_sees(site, state.plan), sha256, nonce)
        share = Deadline(self._deadline.left() * _SETUP_SHARE)
        try:
            result = machine.run(state.nodes, command_line, nonce, share, self._directory.path)
            metrics.observe_nodes(metrics.NODE_SETUP, result.reports.values())
        except UpstreamFailed:
            self._directory.save(state)  # nothing was run anywhere, so no node needs teardown, or suspicion
            raise
        if not result.ok:
            self._save_touched(state, result)
            log_failures(SETUP, result.errors())
            log_stragglers(SETUP, result)
            keep_reports(self._site, state.job, SETUP, result)
            raise _failure(result)
        self._directory.save(replace(state, phase=READY))
        self._forget_records(state)
        times, nodes = times_of(result), in_brief(state.nodes)
        _log.info(
            "image %s ready on %s; %s",
            state.image,
            counted(len(state.nodes), "node"),
            times,
            extra=event(SETUP, image=state.image, nodes=nodes, count=len(state.nodes), **times.as_fields()),
        )
        return result

    def _save_touched(self, state: JobState, result: FanOutResult) -> None:
        """Only where the software could start is there something to undo."""
        touched = tuple(node for node in state.nodes if node not in result.not_started)
        if touched:
            self._directory.save(replace(state, nodes=touched, phase=SETTING_UP))
        else:
            self._directory.save(state)

    def _forget_records(self, state: JobState) -> None:
        """The job runs on these nodes, whatever was recorded of them; a record that cannot be removed stays."""
        try:
            forget_proved_clean(self._site, state.nodes)
        except (UdiError, OSError) as error:
            _log.warning("records of nodes that are clean could not be removed: %s", error)


def _first_cause(done: Takedown) -> str:
    return next(iter(done.dirty.values()), "")


def _failure(result: FanOutResult) -> UdiError:
    """One error for all nodes. It is the user's only where every node that failed reported one of the user's. Where
    none of several nodes succeeded, the hint says so: what they share is the site's."""
    errors = result.errors()
    everywhere = len(errors) == len(result.asked) > 1
    if result.not_started:
        nodes, check = sorted(result.not_started), "check node.python and node.zip"
        hint = f"{EVERYWHERE}{check}" if everywhere else check
        return SetupFailed(f"setup on {in_brief(nodes)}: {errors[nodes[0]]}", hint)
    if result.silent:
        hint = f"{EVERYWHERE}does this host reach nodes at all?" if everywhere else ""
        return SetupFailed(f"setup on {in_brief(result.silent)}: {errors[result.silent[0]]}", hint)
    reports = list(result.failed.values())
    users = [users_error(report) for report in reports]
    first = users[0]
    if first is not None and all(users):
        return first(f"setup on {in_brief(errors)}: {reports[0].words}")
    worst = next(report for report, kind in zip(reports, users, strict=True) if kind is None)
    hint = f"{EVERYWHERE}look at what they share, such as the store" if everywhere else ""
    return SetupFailed(f"setup on {in_brief(errors)}: {worst.words}", hint)
