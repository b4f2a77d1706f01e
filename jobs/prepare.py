"""Preparing a job: image, nodes, plan, set-up on every node; all of it or nothing.

The job's state is written before each step, so that an end at any moment leaves what `jobs.takedown` needs. Whatever
fails after the first node was touched is undone on all nodes before the error is passed on.
"""

from __future__ import annotations

import dataclasses
import logging
import secrets
import time
from dataclasses import dataclass

from alps.fanout import FanOutResult, fan_out
from alps.nids import folded
from alps.reservation import Reservation, find_reservation
from jobs.image import Choice, choose_image
from jobs.planfile import as_node_sees, new_plan_path, write_plan
from jobs.state import PLANNED, READY, SETTING_UP, JobFolder, JobState
from jobs.takedown import take_down_locked
from udi.command import Deadline
from udi.config import SiteConfig
from udi.nodecommand import setup_command
from udi.planning import make_plan
from udi.request import JobRequest
from udi.sshkeys import make_keys
from udiroot.errors import ImageInvalid, NotFound, NotPermitted, SetupFailed, UdiError, UpstreamFailed, UsageError
from udiroot.plan import NodePlan

_log = logging.getLogger("udi.jobs")
_SETUP_SHARE = 0.6
"""Of the time that is left, so that a set-up which takes all of it can still be undone."""
_UNDO_SECONDS = 30
_USERS_ERRORS: tuple[type[UdiError], ...] = (UsageError, NotFound, NotPermitted, ImageInvalid)


@dataclass(frozen=True)
class Prepared:
    """What was set up: on these nodes; `notice` is what the user should know."""

    nids: tuple[int, ...] = ()
    notice: str = ""


def prepare(site: SiteConfig, request: JobRequest, has_nodes: bool, deadline: Deadline) -> Prepared:
    """Set the job's root up on all its nodes.

    Where `has_nodes` is false, the workload manager knows of no compute node: then ALPS is asked without waiting, and a
    job without reservation needs nothing. Raises the UdiError of what failed; of an error that several nodes gave, the
    class says who must act.
    """
    folder = JobFolder(site, request.job)
    with folder.locked(deadline):
        try:
            _clear_remains(site, folder, deadline)
            choice = choose_image(site, request)
            reservation = _reservation(site, request.job, has_nodes, deadline)
            if reservation is None:
                _log.info("no compute nodes: nothing to set up for %s", request.reference)
                return Prepared()
            return _set_up(site, request, choice, reservation, folder, deadline)
        finally:
            folder.remove_if_over()


def _clear_remains(site: SiteConfig, folder: JobFolder, deadline: Deadline) -> None:
    """An earlier try of the same job may have been killed: what it left goes first, on the nodes that it had."""
    state = folder.load()
    if state is None:
        return
    _log.warning("an earlier try of this job ended while %s; taking it down", state.phase)
    take_down_locked(site, folder, deadline)


def _reservation(site: SiteConfig, job: str, has_nodes: bool, deadline: Deadline) -> Reservation | None:
    try:
        return find_reservation(site, job, deadline, None if has_nodes else 0)
    except NotFound as error:
        if has_nodes:
            raise UpstreamFailed(error.message, "the job has nodes, so ALPS should have one") from error
        return None


def _set_up(
    site: SiteConfig,
    request: JobRequest,
    choice: Choice,
    reservation: Reservation,
    folder: JobFolder,
    deadline: Deadline,
) -> Prepared:
    keys = make_keys(site, folder.path) if site.ssh.enabled and request.user.uid else None
    plan = make_plan(site, request, choice.facts, [(node.nid, node.slots) for node in reservation.nodes], keys)
    state = JobState(
        job=request.job,
        user=request.user.name,
        image=str(request.reference),
        image_id=choice.facts.id,
        reservation=reservation.id,
        nids=tuple(node.nid for node in reservation.nodes),
        plan=new_plan_path(site, request.job),
        phase=PLANNED,
        since=int(time.time()),
    )
    folder.save(state)
    try:
        _on_nodes(site, state, plan, folder, deadline)
    except BaseException:
        # Whatever it was, a signal included: no node may keep half of a job.
        take_down_locked(site, folder, Deadline(max(_UNDO_SECONDS, deadline.left())))
        raise
    return Prepared(state.nids, choice.notice)


def _on_nodes(site: SiteConfig, state: JobState, plan: NodePlan, folder: JobFolder, deadline: Deadline) -> None:
    sha256 = write_plan(site, state.plan, plan)
    folder.save(dataclasses.replace(state, phase=SETTING_UP))
    nonce = secrets.token_hex(16)
    command_line = setup_command(site, as_node_sees(site, state.plan), sha256, nonce)
    share = Deadline(deadline.left() * _SETUP_SHARE)
    try:
        result = fan_out(site, state.nids, command_line, nonce, share, folder.path)
    except UpstreamFailed:
        folder.save(state)  # nothing was run anywhere, so no node needs teardown, or suspicion
        raise
    if not result.ok:
        raise _failure(result)
    folder.save(dataclasses.replace(state, phase=READY))
    _say_how_long(state, result)


def _failure(result: FanOutResult) -> UdiError:
    """One error for all nodes. It is the user's only where every node that is not well said so itself."""
    for nid, reason in sorted(result.troubles().items()):
        _log.error("set-up: %s: %s", folded([nid]), reason)
    troubled = folded(result.troubles())
    if result.silent:
        return SetupFailed(f"set-up on {folded(result.silent)}: no answer: {result.cause}")
    classes = {kind.exit_code: kind for kind in _USERS_ERRORS}
    first = result.failed[0]
    if all(report.code in classes for report in result.failed):
        return classes[first.code](f"set-up on {troubled}: {first.words}")
    worst = next(report for report in result.failed if report.code not in classes)
    return SetupFailed(f"set-up on {troubled}: {worst.words}")


def _say_how_long(state: JobState, result: FanOutResult) -> None:
    for nid in state.nids:
        _log.info("set-up: %s: %d ms", folded([nid]), result.reports[nid].milliseconds)
    slowest = max(result.reports.values(), key=lambda report: report.milliseconds)
    _log.info(
        "image %s ready on %d nodes; slowest %s, %d ms",
        state.image, len(state.nids), folded([slowest.nid]), slowest.milliseconds,
    )  # fmt: skip
