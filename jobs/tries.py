"""What becomes of a job whose start keeps failing through no fault of its user.

A workload manager may start a job again at once and for ever. So after a few starts the job is held, and the reason is
reported to the user and kept.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import time
from dataclasses import dataclass
from typing import Protocol

from udi.config import SiteConfig
from udi.durable import read_text, remove, write_text
from udi.log import plain
from udi.request import job_id
from udiroot.errors import UdiError, UpstreamFailed, printable

_KEPT_SECONDS = 30 * 24 * 3600
_log = logging.getLogger("udi.jobs")


class WorkloadManager(Protocol):
    """What is needed of a workload manager for a job that must not be started again."""

    def hold(self, job: str) -> None:
        """Keep the job from starting until a person releases it. Raises UpstreamFailed, TimedOut."""


@dataclass(frozen=True)
class Hold:
    """A job that we held, why, and when (epoch seconds)."""

    job: str
    reason: str
    since: int


def hold_after_tries(
    site: SiteConfig, manager: WorkloadManager, job: str, starts: int, most: int, error: UdiError
) -> bool:
    """Hold the job after `most` starts that failed through no fault of its user; whether that was done."""
    if error.is_users or starts < most:
        return False
    try:
        manager.hold(job)
    except UdiError as refused:
        _log.error("the job could not be held after %d starts: %s", starts, refused.message)
        return False
    _log.error("held after %d starts: %s", starts, error.message)
    _keep(site, Hold(job, plain(error.message, 400), int(time.time())))
    return True


def holds(site: SiteConfig) -> list[Hold]:
    """Jobs that we held and that have not run since."""
    try:
        names = sorted(os.listdir(_directory(site)))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UpstreamFailed(f"{_directory(site)} cannot be read: {error.strerror}") from error
    return [_read(f"{_directory(site)}/{name}") for name in names if name.endswith(".json")]


def _read(path: str) -> Hold:
    try:
        return Hold(**json.loads(read_text(path)))
    except (OSError, ValueError, TypeError) as error:
        raise UpstreamFailed(f"{path} cannot be read: {printable(error)}") from error


def forget_hold(site: SiteConfig, job: str) -> None:
    """The job runs, so no hold of it is left."""
    remove(_path(site, job))


def _keep(site: SiteConfig, hold: Hold) -> None:
    """The reason, for `udi-admin status`; the job is held even where the reason cannot be kept.

    The deletion of a held job is not reported to us, so old reasons are removed as new ones are added.
    """
    try:
        for old in holds(site):
            if old.since < hold.since - _KEPT_SECONDS:
                forget_hold(site, old.job)
        write_text(_path(site, hold.job), json.dumps(dataclasses.asdict(hold), sort_keys=True) + "\n")
    except UdiError as error:
        _log.error("the reason for the hold could not be kept: %s", error.message)


def _directory(site: SiteConfig) -> str:
    return f"{os.path.dirname(site.jobs.state)}/held"


def _path(site: SiteConfig, job: str) -> str:
    return f"{_directory(site)}/{job_id(job)}.json"
