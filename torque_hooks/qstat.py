"""A job as pbs_server knows it, by `qstat -x`: one line of XML (cray-reference T40 to T47).

pbs_mom passes none of the user's variables to its hooks (T21), so they come from here.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

from torque_hooks.asking import qstat_of
from torque_hooks.qstatxml import jobs_in
from torque_hooks.settings import TorqueConfig
from udi.command import Deadline
from udi.platform import Host
from udi.values import Frozen, field
from udiroot.errors import UpstreamFailed, printable

_log = logging.getLogger("udi.torque")
_SLOTS = re.compile(r"([0-9]{1,6})(?:-([0-9]{1,6}))?")


class TorqueJob(Frozen):
    """What the hooks need of a job. Texts are as Torque has them: user text, where the user chose them."""

    id: str
    name: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    error_path: str = ""
    output_path: str = ""
    join: str = "n"
    hosts: tuple[Host, ...] = ()
    is_interactive: bool = False


def read_job(torque: TorqueConfig, job: str, deadline: Deadline, answer: bytes = b"") -> TorqueJob:
    """The job called `job`, from an `answer` of `qstat -x` that the caller has, or else from `qstat` itself.

    Raises UpstreamFailed when Torque does not know the job or its answer is invalid, TimedOut.
    """
    if answer:
        try:
            return parse_job(answer, job)
        except UpstreamFailed as error:
            _log.warning("qstat is run again: %s", error.message)
    done = qstat_of(torque, job, deadline)
    if done is None:
        raise UpstreamFailed(f"qstat does not know job {printable(job)}")
    return parse_job(done.require_success().stdout, job)


def read_fields(torque: TorqueConfig, job: str, deadline: Deadline) -> dict[str, str] | None:
    """All that Torque shows of a job, by the names of `qstat -x`; None where it knows no such job.

    Raises UpstreamFailed, TimedOut.
    """
    done = qstat_of(torque, job, deadline)
    if done is None:
        return None
    for fields in jobs_in(done.require_success().stdout):
        if fields.get("Job_Id", "").partition(".")[0] == job.partition(".")[0]:
            return fields
    return None


def parse_job(answer: bytes, job: str) -> TorqueJob:
    """The job in an answer of `qstat -x`. Raises UpstreamFailed."""
    for fields in jobs_in(answer):
        if fields.get("Job_Id") == job:
            return TorqueJob(
                id=job,
                name=fields.get("Job_Name", ""),
                variables=split_variables(fields.get("Variable_List", "")),
                error_path=fields.get("Error_Path", ""),
                output_path=fields.get("Output_Path", ""),
                join=fields.get("Join_Path") or "n",
                hosts=parse_hosts(fields.get("exec_host", "")),
                is_interactive=fields.get("interactive", "").lower() not in ("", "false", "0"),
            )
    raise UpstreamFailed(f"qstat's answer does not contain job {printable(job)}")


def parse_hosts(text: str) -> tuple[Host, ...]:
    """The hosts of an `exec_host`, each once, with the slots that it lists: `12/0-1+13/0+13/3` (T2, T4)."""
    slots: dict[str, int] = {}
    for item in filter(None, text.split("+")):
        name, _, listed = item.partition("/")
        slots[name] = slots.get(name, 0) + sum(map(_range_size, listed.split(",")))
    return tuple(Host(name, count) for name, count in slots.items())


def _range_size(text: str) -> int:
    """How many slots `3` or `0-7` lists; anything else counts as one."""
    match = _SLOTS.fullmatch(text)
    if match is None or match[2] is None:
        return 1
    return max(1, int(match[2]) - int(match[1]) + 1)


def split_variables(text: str) -> dict[str, str]:
    """The variables of a `Variable_List`, after XML decoding.

    Items are separated by commas without a backslash before them, each is split at its first `=`, then the backslashes
    are removed (T42). A name can be listed twice: the last one wins (T43).
    """
    variables = {}
    for item in re.findall(r"(?:[^,\\]|\\.|\\$)+", text, re.DOTALL):
        name, _, value = item.partition("=")
        variables[_unescaped(name)] = _unescaped(value)
    return variables


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.?)", r"\1", text, flags=re.DOTALL)
