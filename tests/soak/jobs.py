"""What jobs of a run may print: their image's own words, as their own user, with their own volumes, and a line for each
task of a launch that ended well; nothing from outside an image."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from tests.soak.wishes import Volumes


def look(volumes: Volumes) -> str:
    """A shell command, without single quotes, by which a task says where it is, as whom, and what its volumes are."""
    where = "$(cat /etc/marker 2>/dev/null || echo NO-IMAGE)"
    return f'echo "task in {where} as $(id -u) with $({volumes.proof})"'


NOT_PINNED = "it will be when the job starts"
"""In what a user is told at submission where the gateway does not answer: the job's image is chosen at its start."""
ENDED = "echo ended $?"
"""What a script does after each launch of tasks."""
BEGAN = "began"
"""What a script prints that runs in the image itself, after it has said so."""


@dataclass(frozen=True)
class Expected:
    """A job: what each of its tasks must say, and how many tasks each of its launches has. Its image may be one of
    those that have these markers, but all tasks have the same one."""

    job: str
    user: str
    uid: int
    markers: Callable[[], frozenset[str]]
    word: str
    tasks: int
    refused: bool
    """Its submission should have been refused, or at least its start: no task may run."""

    def wrong(self, output: str) -> list[str]:
        """What no task of this job may print, and launches that ended well without all of their tasks."""
        allowed = self.markers()
        found, seen, markers = [], 0, set()
        for line in output.splitlines():
            if line.startswith("task in "):
                seen += 1
                where = line.split(" ")[2]
                markers.add(where)
                if where not in allowed or line != f"task in {where} as {self.uid} with {self.word}":
                    found.append(f"not {sorted(allowed)}, {self.uid}, {self.word}: {line}")
            elif line.startswith("ended ") or line == BEGAN:
                wanted = 1 if line == BEGAN else self.tasks
                if line in (BEGAN, "ended 0") and seen != wanted:
                    found.append(f"{seen} of {wanted} tasks said where they are, before: {line}")
                seen = 0
        if self.refused and markers:
            found.append("tasks ran with a volume that nobody may have")
        if len(markers) > 1:
            found.append(f"tasks in different images: {sorted(markers)}")
        return found


class Submitted:
    """The jobs that are not over yet, shared by all who submit and cancel."""

    def __init__(self) -> None:
        self._jobs: dict[str, Expected] = {}
        self._by_number: dict[str, list[Expected]] = {}
        """All that were ever submitted: a slurmctld that is killed before it has saved its state gives the numbers of
        the last jobs out again, and what such a number printed is of one of its jobs."""
        self._lock = threading.Lock()
        self.total = 0
        self.proved = 0
        """Tasks that have said where they are."""

    @property
    def told(self) -> str:
        return f"{self.total} jobs, {self.proved} tasks"

    def add(self, job: Expected) -> None:
        with self._lock:
            self._jobs[job.job] = job
            self._by_number.setdefault(job.job, []).append(job)
            self.total += 1

    def over(self, job: Expected, output: str) -> None:
        """It has ended, and has printed this. Raises AssertionError where that is wrong."""
        with self._lock:
            self._jobs.pop(job.job, None)
            self.proved += output.count("task in ")
            wrong = [each.wrong(output) for each in self._by_number[job.job]]
        assert [] in wrong, f"job {job.job} of {job.user}: {wrong} in {output}"
        assert "Traceback" not in output, f"job {job.job}: {output}"

    def now(self) -> list[Expected]:
        with self._lock:
            return list(self._jobs.values())


def always(marker: str) -> Callable[[], frozenset[str]]:
    """The markers of a name that does not move."""
    return lambda: frozenset([marker])


class Tag:
    """A name of an image that is given to another one now and then, while others read it and pulls of it fail."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = threading.Lock()
        self._begun = self._oldest = 0
        self._sure = True

    def next(self) -> str:
        """The marker of the image that the name is about to get."""
        with self._lock:
            self._begun += 1
            return self._marker(self._begun)

    def moved(self, *, surely: bool) -> None:
        """Its pull is over: surely it has that image now. After one whose client failed it may have either, and the
        gateway may even be at work on it yet: the next one that is sure tells of itself only that it came later."""
        with self._lock:
            if surely:
                self._oldest = self._begun if self._sure else max(self._oldest, self._begun - 1)
            self._sure = surely

    @property
    def oldest(self) -> int:
        """The oldest image that it can have now."""
        with self._lock:
            return self._oldest

    def markers(self, oldest: int, *, pinned: bool) -> Callable[[], frozenset[str]]:
        """Those of a job that has just been submitted: of the images that the name can have had since `oldest` was
        told; where the submission pinned none, also of those that it gets until the job is over."""
        newest = self._begun if pinned else None
        return lambda: frozenset(self._marker(n) for n in range(oldest, (newest or self._begun) + 1))

    def _marker(self, number: int) -> str:
        return f"{self.name}-{number}"
