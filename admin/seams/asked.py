"""What a workload manager, and the files of its hooks, say of one job now, as `udi-admin job` takes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from jobs.state import JobState
from jobs.tries import FailedStarts

Fate = Literal["", "queued", "held", "running", "ended"]


@dataclass(frozen=True)
class Asked:
    """One job. `job` is its id in full; `fate` is empty where the workload manager does not know the job any more.

    `user`, `image`, `volumes` and `modules` are as the submission has them, and `pin` is the id that its image had
    then. `release` is the command that releases it where it is held. `said` is what the workload manager says, a few
    rows for a person. `state` is the job on this host where its hooks keep no directory of states; `failure` is what a
    hook told the user. `trouble` is why nothing was asked.
    """

    job: str
    fate: Fate = ""
    user: str = ""
    image: str = ""
    volumes: str = ""
    modules: str = ""
    pin: str = ""
    release: str = ""
    said: Mapping[str, str] = field(default_factory=dict)
    failed: FailedStarts | None = None
    state: JobState | None = None
    failure: str = ""
    trouble: str = ""
