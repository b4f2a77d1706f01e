"""What pbs_mom tells its hooks: 7 or 8 arguments for a prologue, 10 or 11 for an epilogue (cray-reference 4.3).

The job script's path is the last one, from Torque 5.1 on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from udi.config import DEFAULT_PATH
from udi.request import job_id
from udiroot.errors import UsageError


def config_and_rest(words: Sequence[str]) -> tuple[str, list[str]]:
    """The configuration's path, which the installed wrapper gives first, and the arguments after it.

    No option is looked for among those: a user chooses some of them, such as the job's name and account.
    """
    if len(words) >= 2 and words[0] == "--config":
        return words[1], list(words[2:])
    return DEFAULT_PATH, list(words)


@dataclass(frozen=True)
class PrologueCall:
    """A prologue's arguments; `script` is empty where Torque names none."""

    job: str
    user: str
    group: str
    name: str
    resources: str
    queue: str
    account: str
    script: str = ""


@dataclass(frozen=True)
class EpilogueCall:
    """An epilogue's arguments; `script` is empty where Torque names none."""

    job: str
    user: str
    group: str
    name: str
    session: str
    resources: str
    used: str
    queue: str
    account: str
    status: str
    script: str = ""


def prologue_call(arguments: Sequence[str]) -> PrologueCall:
    """A prologue's arguments, typed. Raises UsageError."""
    if len(arguments) not in (7, 8):
        raise UsageError(f"a prologue gets 7 or 8 arguments, not {len(arguments)}", "pbs_mom calls this program")
    job_id(arguments[0])
    return PrologueCall(*arguments)


def epilogue_call(arguments: Sequence[str]) -> EpilogueCall:
    """An epilogue's arguments, typed. Raises UsageError."""
    if len(arguments) not in (10, 11):
        raise UsageError(f"an epilogue gets 10 or 11 arguments, not {len(arguments)}", "pbs_mom calls this program")
    job_id(arguments[0])
    return EpilogueCall(*arguments)
