"""Trials: an operator's set-up of an image on one node without a job (`udi-admin try`).

A trial is a job to everything on the node, by an id that no workload manager gives. It gives way: the set-up of a job
that meets a trial, or what is left of one, takes it down first, at whatever step that is.
"""

from udiroot.record import RunDirectory
from udiroot.teardown import lock_for_teardown

PREFIX = "try."
"""Begins the id of each."""


def is_trial(job: str) -> bool:
    """Whether that is the id of a trial."""
    return job.startswith(PREFIX)


def gives_way(other: str, job: str) -> bool:
    """Whether what the node has of `other` is taken down for the set-up of `job`."""
    return is_trial(other) and not is_trial(job)


def lock_instead(job: str, run: RunDirectory, deadline: float) -> bool:
    """Take the lock of `run` from a trial whose set-up holds it, which is killed; False where it is no trial's.

    `deadline` is a time of time.monotonic().
    """
    record = run.read()
    return record is not None and gives_way(record.job, job) and lock_for_teardown(record.job, run, deadline)
