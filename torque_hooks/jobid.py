"""A job's id as Torque writes it: `123.sdb`, `12[3].sdb` for one job of an array, `12[].sdb` for the array."""

from __future__ import annotations

import re

from udiroot.errors import UsageError, printable

_JOB_ID = re.compile(r"[0-9]{1,12}(?:\[[0-9]{0,8}\])?(?:\.[A-Za-z0-9][A-Za-z0-9.-]{0,100})?")


def job_id(text: str) -> str:
    """The id that `text` is. Raises UsageError."""
    if not _JOB_ID.fullmatch(text):
        raise UsageError(f"not a Torque job id: '{printable(text)}'")
    return text
