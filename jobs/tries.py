"""Who must act on a failed start, and what becomes of a job whose site keeps failing it.

A workload manager may start a job again at once and for ever (torque-reference b). So after a few starts the job is
held, and the reason is told to the user and kept.
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
from udiroot.errors import ImageInvalid, NotFound, NotPermitted, UdiError, UpstreamFailed, UsageError, printable

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


def is_users(error: UdiError) -> bool:
    """Whether the user must change something; else the site must."""
    return isinstance(error, (UsageError, NotFound, NotPermitted, ImageInvalid))


def hold_after_tries(
    site: SiteConfig, manager: WorkloadManager, job: str, starts: int, most: int, error: UdiError
) -> bool:
    """Hold the job where its site has failed it often enough; whether that was done."""
    if is_users(error) or starts < most:
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
        names = sorted(os.listdir(_folder(site)))
    except FileNotFoundError:
        return []
    return [_read(f"{_folder(site)}/{name}") for name in names if name.endswith(".json")]


def _read(path: str) -> Hold:
    try:
        return Hold(**json.loads(read_text(path)))
    except (OSError, ValueError, TypeError) as error:
        raise UpstreamFailed(f"{path} cannot be read: {printable(error)}") from error


def forget_hold(site: SiteConfig, job: str) -> None:
    """The job runs."""
    remove(_path(site, job))


def _keep(site: SiteConfig, hold: Hold) -> None:
    """The reason, for `udi-admin status`; the job is held also where it cannot be kept.

    Nobody tells us when a held job is deleted, so old reasons go as new ones come.
    """
    try:
        for old in holds(site):
            if old.since < hold.since - _KEPT_SECONDS:
                forget_hold(site, old.job)
        write_text(_path(site, hold.job), json.dumps(dataclasses.asdict(hold), sort_keys=True) + "\n")
    except UdiError as error:
        _log.error("why it is held could not be kept: %s", error.message)


def _folder(site: SiteConfig) -> str:
    return f"{os.path.dirname(site.jobs.state)}/held"


def _path(site: SiteConfig, job: str) -> str:
    return f"{_folder(site)}/{job_id(job)}.json"
