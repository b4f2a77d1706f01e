"""What becomes of a job whose start keeps failing through no fault of its user.

A workload manager may start a job again at once and for ever. So after a few failed starts the job is held, and the
reason is reported to the user and kept. The failures are counted here, one small file a job: a workload manager's own
count of starts has refused reservations and reruns in it and never falls (torque-reference h).

A job that we held and that starts again was released by a person, and all its starts are before it again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Collection
from typing import Protocol

from udi.config import SiteConfig
from udi.durable import write_text
from udi.jobid import is_job_id, job_id
from udi.log import plain
from udi.oserrors import reason
from udi.records import modified, read_record, remove_record
from udi.values import Frozen, as_dict, replace
from udiroot.errors import SetupFailed, UdiError, UpstreamFailed, counted

_KEPT_SECONDS = 30 * 24 * 3600
_log = logging.getLogger("udi.jobs")


class AnotherStartWouldHarm(SetupFailed):
    """A start failed in a way by which another one might cost more nodes: the job is held at once."""


class WorkloadManager(Protocol):
    """What is needed of a workload manager for a job that must not be started again."""

    def hold(self, job: str) -> None:
        """Keep the job from starting until a person releases it. Raises UpstreamFailed, TimedOut."""


class Hold(Frozen):
    """A job that we held, why, and when (epoch seconds)."""

    job: str
    reason: str
    since: int


class FailedStarts(Frozen):
    """So many starts of a job have failed since it was submitted or released, the last one for this reason and then
    (epoch seconds); whether it was held for that."""

    count: int
    is_held: bool
    reason: str
    since: int


class Verdict(Frozen):
    """What became of a job after a start that failed: so many have failed since it was submitted or released."""

    failures: int
    held: bool


class _Tries(Frozen):
    """The file of one job. `since` is when it last failed."""

    job: str
    failures: int
    held: bool
    reason: str
    since: int


def hold_after_tries(site: SiteConfig, manager: WorkloadManager, job: str, most: int, error: UdiError) -> Verdict:
    """Count a start that failed, and hold the job after `most` of them, or at once where another one would harm.

    Only for what is not the user's fault. Where the failures cannot be counted, the job is held at once: it must not
    be started for ever.
    """
    tries = _counted(site, job, error)
    failures = tries.failures if tries else most
    if failures < most and not isinstance(error, AnotherStartWouldHarm):
        return Verdict(failures, held=False)
    try:
        manager.hold(job)
    except UdiError as refused:
        _log.error("the job could not be held after %s: %s", counted(failures, "failed start"), refused.message)
        return Verdict(failures, held=False)
    _log.error("held after %s: %s", counted(failures, "failed start"), error.message)
    if tries is not None:
        try:
            _save(site, replace(tries, held=True))
        except UdiError as lost:
            _log.error("the reason for the hold could not be kept: %s", lost.message)
    return Verdict(failures, held=True)


def holds(site: SiteConfig) -> list[Hold]:
    """Jobs that we held and that have not run since; one whose record is damaged may be one of them."""
    found = []
    for job in _jobs(site):
        try:
            tries = _load(site, job)
        except UdiError as damaged:
            found.append(Hold(job, damaged.message, modified(_path(site, job))))
        else:
            found += [Hold(job, tries.reason, tries.since)] if tries and tries.held else []
    return found


def failed_starts(site: SiteConfig, job: str) -> FailedStarts | None:
    """What is counted of the job; None where nothing is. Raises UpstreamFailed for a damaged record."""
    tries = _load(site, job)
    return FailedStarts(tries.failures, tries.held, tries.reason, tries.since) if tries else None


def forget_hold(site: SiteConfig, job: str) -> None:
    """The job runs, or is gone: nothing of its failed starts counts any more. Raises UpstreamFailed."""
    remove_record(_path(site, job))


def forget_ended(site: SiteConfig, queued: Collection[str]) -> None:
    """Forget all jobs but those that the workload manager still has: the deletion of a held job is not reported to us.

    Raises UpstreamFailed.
    """
    for job in _jobs(site):
        if job not in queued:
            forget_hold(site, job)


def _counted(site: SiteConfig, job: str, error: UdiError) -> _Tries | None:
    """The job's failures with this one; None where they cannot be counted."""
    try:
        earlier = _load(site, job)
    except UdiError as damaged:
        _log.error("the job's failed starts are counted from the beginning: %s", damaged.message)
        earlier = None
    now = int(time.time())
    if earlier and earlier.since < now - _KEPT_SECONDS:
        earlier = None  # of a job of long ago that had the same id
    failures = earlier.failures + 1 if earlier and not earlier.held else 1
    tries = _Tries(job, failures, held=False, reason=plain(error.message, 400), since=now)
    try:
        _save(site, tries)
    except UdiError as lost:
        _log.error("the job's failed starts could not be counted: %s", lost.message)
        return None
    _forget_old(site, tries.since)
    return tries


def _forget_old(site: SiteConfig, now: int) -> None:
    """Files of jobs that nobody asked for are removed after a month."""
    with contextlib.suppress(OSError, UpstreamFailed):  # another hook removed it meanwhile, or it waits for the next
        for job in _jobs(site):
            if os.stat(_path(site, job)).st_mtime < now - _KEPT_SECONDS:
                forget_hold(site, job)


def _jobs(site: SiteConfig) -> list[str]:
    try:
        names = sorted(os.listdir(tries_directory(site)))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UpstreamFailed(f"{tries_directory(site)} cannot be read: {reason(error)}") from error
    jobs = [name.removesuffix(".json") for name in names if name.endswith(".json")]
    return [job for job in jobs if is_job_id(job)]  # not a file that is being written, for one


def _load(site: SiteConfig, job: str) -> _Tries | None:
    path = _path(site, job)
    try:
        tries = read_record(path, _Tries, f"remove {path}")
    except FileNotFoundError:
        return None
    if tries.job != job:
        raise UpstreamFailed(f"{path} cannot be read: it is about another job", f"remove {path}")
    return tries


def _save(site: SiteConfig, tries: _Tries) -> None:
    write_text(_path(site, tries.job), json.dumps(as_dict(tries), sort_keys=True) + "\n")


def tries_directory(site: SiteConfig) -> str:
    """Where failed starts are counted: beside `jobs.state`."""
    return f"{os.path.dirname(site.jobs.state)}/tries"


def _path(site: SiteConfig, job: str) -> str:
    return f"{tries_directory(site)}/{job_id(job)}.json"
