"""What jobs of a run may print: their image's own words, as their own user, and nothing from outside an image."""

from __future__ import annotations

import threading
from dataclasses import dataclass

OUTSIDE = "NO IMAGE"
"""What a task says that runs where no image is."""


@dataclass(frozen=True)
class Expected:
    """A job, and how each line of its tasks must end: `in MARKER… as UID`. A tag that moves has several markers, which
    begin alike."""

    job: str
    user: str
    uid: int
    marker: str

    def wrong(self, output: str) -> list[str]:
        """The lines that no task of this job may print."""
        told = [line for line in output.splitlines() if " in " in line and " as " in line]
        return [line for line in told if not self._is_ours(line)]

    def _is_ours(self, line: str) -> bool:
        where, _, uid = line.partition(" in ")[2].partition(" as ")
        return OUTSIDE not in where and where.startswith(self.marker) and uid.split()[:1] == [str(self.uid)]


class Submitted:
    """The jobs that are not over yet, shared by all who submit and cancel."""

    def __init__(self) -> None:
        self._jobs: dict[str, Expected] = {}
        self._lock = threading.Lock()
        self.total = 0

    def add(self, job: Expected) -> None:
        with self._lock:
            self._jobs[job.job] = job
            self.total += 1

    def remove(self, job: Expected) -> None:
        with self._lock:
            self._jobs.pop(job.job, None)

    def now(self) -> list[Expected]:
        with self._lock:
            return list(self._jobs.values())
