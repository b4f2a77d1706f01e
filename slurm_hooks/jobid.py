"""A job's id as Slurm gives it to its hooks: a number, also for a job of an array or a part of a heterogeneous one."""

from __future__ import annotations

import re

from udiroot.errors import UsageError, printable

_JOB_ID = re.compile(r"[1-9][0-9]{0,9}")


def job_id(text: str) -> str:
    """The id that `text` is. Raises UsageError."""
    if not _JOB_ID.fullmatch(text):
        raise UsageError(f"not a Slurm job id: '{printable(text)}'")
    return text
