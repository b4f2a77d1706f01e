"""Ids of batch jobs, of whichever workload manager."""

from __future__ import annotations

import re

from udiroot.errors import UsageError, printable

_JOB_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.\[\]-]{0,119}")


def job_id(text: str) -> str:
    """A batch job's id, as any workload manager may write it and as a file name and a node's command line can hold it.

    A workload manager's own grammar is stricter. Raises UsageError.
    """
    if not _JOB_ID.fullmatch(text):
        raise UsageError(f"not a job id: '{printable(text)}'")
    return text


def is_job_id(text: str) -> bool:
    """Whether `job_id` takes the text."""
    return _JOB_ID.fullmatch(text) is not None
