"""What the job host knows of a running job: one small JSON file in a directory of the job's own, for root only.

Written before each step that it describes, so that whoever comes later (the epilogue, the next prologue, an operator)
needs nothing else: not the workload manager, not the machine, not the plan.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from typing import Any

from udi.command import Deadline
from udi.config import SiteConfig
from udi.durable import make_directory, sync_directory, write_text
from udi.filelock import locked
from udi.jobid import is_job_id, job_id
from udi.nodes import Node
from udi.oserrors import reason
from udi.records import read_record, remove_record
from udi.values import Frozen
from udiroot.errors import TimedOut, UpstreamFailed

PLANNED = "planned"
"""The plan's path and the nodes are known; no node was touched."""
SETTING_UP = "setting up"
READY = "ready"
TAKING_DOWN = "taking down"
_PHASES = (PLANNED, SETTING_UP, READY, TAKING_DOWN)


class JobState(Frozen):
    """A job as it stands. `plan` is the plan's path as the job host sees it; `since` in epoch seconds.

    `allocation` is what the machine calls the job's nodes, where it has such a name. `teardown` is the command line by
    which its nodes are taken down, as the version that set it up made it (`udi.nodecommand.kept_teardown`)."""

    job: str
    user: str
    image: str
    image_id: str
    allocation: str
    nodes: tuple[Node, ...]
    plan: str
    phase: str
    since: int
    teardown: str = ""

    def as_json(self) -> dict[str, Any]:
        """What people and their programs are shown; the nodes by their names."""
        kept = {name: value for name, value in vars(self).items() if name != "teardown"}
        return kept | {"nodes": [node.name for node in self.nodes]}  # dataclasses.asdict would copy each node


class JobDirectory:
    """The directory of one job under `jobs.state`. Raises UsageError for a text that is not a job id."""

    def __init__(self, site: SiteConfig, job: str) -> None:
        self.job = job_id(job)
        self.path = f"{site.jobs.state}/{self.job}"
        self._file = f"{self.path}/state.json"

    @property
    def exists(self) -> bool:
        return os.path.isdir(self.path)

    def save(self, state: JobState) -> None:
        """Keep the state, on the disk before anything else happens."""
        kept = state.as_json() | {"teardown": state.teardown}
        write_text(self._file, json.dumps(kept, sort_keys=True) + "\n")

    def load(self) -> JobState | None:
        """The state; None where the job got no further than its directory. Raises UpstreamFailed for a damaged one."""
        hint = f"an operator finds the nodes of the job, and then runs: udi-admin takedown {self.job} --nodes NODES"
        try:
            state = read_record(self._file, JobState, hint)
        except FileNotFoundError:
            return None
        if state.phase not in _PHASES or state.job != self.job or not state.plan.startswith("/"):
            raise UpstreamFailed(f"{self._file} cannot be read: it is not the state of job {self.job}", hint)
        return state

    def forget(self) -> None:
        """Nothing of the job is left anywhere. Raises UpstreamFailed."""
        remove_record(self._file)

    def remove_if_over(self) -> None:
        """The job is over, unless it has a state. For the holder of the lock. Raises UpstreamFailed."""
        if os.path.lexists(self._file):
            return
        try:
            _remove(self.path)
            sync_directory(os.path.dirname(self.path))
        except OSError as error:
            raise UpstreamFailed(f"{self.path} cannot be removed: {reason(error)}", "repair its file system") from error

    def locked(self, deadline: Deadline) -> contextlib.AbstractContextManager[None]:
        """Alone with the job: an epilogue that comes while its prologue still undoes waits for it. Raises TimedOut."""
        return locked(self.path, self._open, deadline, TimedOut(f"job {self.job} is still locked by another hook"))

    def _open(self) -> int:
        try:
            make_directory(self.path)
            return os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise UpstreamFailed(f"{self.path} cannot be made: {reason(error)}") from error


def jobs_with_state(site: SiteConfig) -> list[JobDirectory]:
    """Every job that has a directory here."""
    try:
        names = sorted(os.listdir(site.jobs.state))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UpstreamFailed(f"{site.jobs.state} cannot be read: {reason(error)}") from error
    return [JobDirectory(site, name) for name in names if is_job_id(name)]


def _remove(directory: str) -> None:
    """Most are empty by now. Only what a hook that was killed has left needs shutil, which takes long to import."""
    try:
        os.rmdir(directory)
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        import shutil

        shutil.rmtree(directory)
