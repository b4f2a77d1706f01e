"""A batch job's id in the forms that ALPS shows it: full, or the number alone (cray-reference S4, S5, 3.5)."""

from __future__ import annotations


def number_of(job: str) -> str:
    """`123[4].sdb` → `123[4]`."""
    return job.split(".", 1)[0]


def bare_number_of(job: str) -> str:
    """`123[4].sdb` → `123`."""
    return number_of(job).split("[", 1)[0]


def is_same_job(shown: str, job: str) -> bool:
    """Whether an id that ALPS shows is `job`: the same number, and the same server where both name one.

    One party may say `sdb` where the other says `sdb.site.org`.
    """
    if not shown or number_of(shown) != number_of(job):
        return False
    theirs, ours = shown.split(".")[1:2], job.split(".")[1:2]
    return not theirs or not ours or theirs == ours
