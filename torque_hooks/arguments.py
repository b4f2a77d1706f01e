"""What pbs_mom passes to its hooks: 7 or 8 arguments to a prologue, 10 or 11 to an epilogue (cray-reference 4.3).

The job script's path is the last one, from Torque 5.1 on.
"""

from __future__ import annotations

from collections.abc import Sequence

from torque_hooks.jobid import job_id
from udi.config import DEFAULT_PATH
from udi.values import Frozen
from udiroot.errors import UsageError

_CALLER = "pbs_mom runs this program"


def config_and_rest(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The configuration's path, which the installed wrapper passes first, and the arguments after it.

    No option is looked for among those: a user chooses some of them, such as the job's name and account.
    """
    if len(arguments) >= 2 and arguments[0] == "--config":
        return arguments[1], list(arguments[2:])
    return DEFAULT_PATH, list(arguments)


class PrologueCall(Frozen):
    """A prologue's arguments; `script` is empty where Torque names none."""

    job: str
    user: str
    group: str
    name: str
    resources: str
    queue: str
    account: str
    script: str = ""


class EpilogueCall(Frozen):
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
        raise UsageError(f"a prologue takes 7 or 8 arguments, not {len(arguments)}", _CALLER)
    job_id(arguments[0])
    return PrologueCall(*arguments)


def epilogue_call(arguments: Sequence[str]) -> EpilogueCall:
    """An epilogue's arguments, typed. Raises UsageError."""
    if len(arguments) not in (10, 11):
        raise UsageError(f"an epilogue takes 10 or 11 arguments, not {len(arguments)}", _CALLER)
    job_id(arguments[0])
    return EpilogueCall(*arguments)
