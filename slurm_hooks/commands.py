"""What the hooks ask Slurm and tell it, by squeue and scontrol. None of it goes through a shell."""

from __future__ import annotations

import os
import re
from collections.abc import Collection

from slurm_hooks.settings import SlurmConfig
from udi.command import Deadline, Finished, run
from udi.log import plain
from udi.values import Frozen
from udiroot.errors import UpstreamFailed, printable
from udiroot.fields import number

REASON = "shifter-xc: "
"""Begins the reason of each node that we drain, and what we write about a job."""
_JOB_FIELDS = "JobID:|,JobArrayID:|,State:|,RestartCnt:|,NodeList:|,admin_comment:"
"""Nothing that a user chooses is among them."""
_SHOWN = {
    "UserName": "user", "Partition": "partition", "State": "state", "Reason": "reason", "SubmitTime": "submitted",
    "StartTime": "started", "EndTime": "ends", "RestartCnt": "restarts", "NodeList": "nodes", "exit_code": "exit code",
}  # fmt: skip
"""Fields of squeue for a person, and what we call them. Again, nothing that a user chooses."""
_GONE = b"Invalid job id specified"
_STATE = re.compile(r"^\s*State=([A-Z_+*~#!%$@^-]+)", re.MULTILINE)
_REASON = re.compile(r"^\s*Reason=(.*?)(?: \[[^\[\]@]*@([0-9T:-]+)\])?\s*$", re.MULTILINE)
_HOST = re.compile(r"\bNodeHostName=(\S+)")
RUNNING = ("RUNNING", "CONFIGURING", "SUSPENDED", "RESIZING", "SIGNALING", "STOPPED", "STAGE_OUT")
ENDING = "COMPLETING"
"""States of a job that has nodes."""
_MAX_REASON = 500
_MAX_COMMENT = 900
_SHORT = 200
_WIDTH = 4096
"""Characters that squeue prints of a comment."""


class QueuedJob(Frozen):
    """A job as slurmctld has it. `name` is what commands take for it: of an array, `ARRAY_INDEX`, since the id of one
    of its jobs is that of the array; of a heterogeneous job, the id of its first component, by which all are queued
    again: Slurm refuses that of any other one alone. `is_component` is true for those others.
    """

    name: str
    state: str
    restarts: int
    nodes: str
    comment: str
    is_component: bool = False

    @property
    def has_nodes(self) -> bool:
        """Whether its nodes are those where it runs or ends: one that waits may show those that it will have."""
        return self.state in (*RUNNING, ENDING)


class NodeState(Frozen):
    """A node as slurmctld has it: `flags` are such as IDLE and DRAIN; `since` is when the reason was given, in seconds
    since 1970, 0 where there is none; `host` is what the node calls itself."""

    flags: frozenset[str]
    reason: str
    since: int = 0
    host: str = ""

    @property
    def is_ours(self) -> bool:
        """Whether it is out of service because of us."""
        return self.is_drained and self.reason.startswith(REASON)

    @property
    def is_drained(self) -> bool:
        return bool({"DRAIN", "DOWN", "FAIL"} & self.flags)


class Slurm:
    """Slurm's commands; `conf` is the slurm.conf that slurmd names to its hooks."""

    def __init__(self, settings: SlurmConfig, conf: str = "") -> None:
        self._settings = settings
        path = settings.conf or conf
        self._environment = {"SLURM_CONF": path} if path.startswith("/") and os.path.isfile(path) else {}

    def job(self, job: str, deadline: Deadline) -> QueuedJob | None:
        """A job; None where slurmctld no longer has it. Raises UpstreamFailed, TimedOut."""
        for line in self._squeue(["--states=all", f"--jobs={job}"], f"{_JOB_FIELDS}{_WIDTH}", deadline):
            found, queued = _queued(line)
            if found == job:
                return queued
        return None

    def jobs(self, jobs: Collection[str], deadline: Deadline) -> dict[str, QueuedJob]:
        """Jobs by their ids, those that slurmctld still has. Raises UpstreamFailed, TimedOut."""
        if not jobs:
            return {}
        lines = self._squeue(["--states=all", f"--jobs={','.join(sorted(jobs))}"], f"{_JOB_FIELDS}{_WIDTH}", deadline)
        pairs = map(_queued, lines)
        return {job: queued for job, queued in pairs if queued and job in jobs}

    def shown(self, job: str, deadline: Deadline) -> dict[str, str]:
        """What slurmctld says of a job, for a person; nothing where it no longer has it. Raises UpstreamFailed,
        TimedOut."""
        form = ",".join(f"{name}:{_SHORT}|" for name in ("JobID", *_SHOWN))
        for line in self._squeue(["--states=all", f"--jobs={job}"], form, deadline):
            found, *values = [plain(part.strip(), _SHORT) for part in line.split("|")]
            if found == job:
                pairs = zip(_SHOWN.values(), values, strict=False)
                return {name: value for name, value in pairs if value not in ("", "None", "N/A", "(null)")}
        return {}

    def pending(self, deadline: Deadline) -> list[QueuedJob]:
        """All jobs that have not started, held ones among them. Raises UpstreamFailed, TimedOut."""
        lines = self._squeue(["--states=PENDING"], f"{_JOB_FIELDS}{_WIDTH}", deadline)
        return [job for line in lines if (job := _queued(line)[1])]

    def requeue(self, name: str, deadline: Deadline) -> None:
        """Stop the job and queue it again. Raises UpstreamFailed where it cannot be, as one that is not a batch job."""
        self._scontrol(["requeue", name], deadline)

    def requeue_held(self, name: str, deadline: Deadline) -> None:
        """The same, and keep it from starting until a person releases it."""
        self._scontrol(["requeuehold", name], deadline)

    def comment(self, name: str, text: str, deadline: Deadline) -> None:
        """Set the job's administrative comment, which only operators can change. Raises UpstreamFailed, TimedOut."""
        self._scontrol(["update", f"jobid={name}", f"admincomment={plain(text, _MAX_COMMENT)}"], deadline)

    def node(self, node: str, deadline: Deadline) -> NodeState:
        """A node's state. Raises UpstreamFailed, TimedOut."""
        text = self._scontrol(["show", "node", node], deadline).stdout.decode("utf-8", "replace")
        state = _node_state(text)
        if state is None:
            raise UpstreamFailed(f"{self._settings.scontrol} does not show the state of node {printable(node)}")
        return state

    def nodes(self, deadline: Deadline) -> dict[str, NodeState]:
        """All nodes by their names. Raises UpstreamFailed, TimedOut."""
        text = self._scontrol(["show", "node"], deadline).stdout.decode("utf-8", "replace")
        parts = re.split(r"^NodeName=(\S+)", text, flags=re.MULTILINE)[1:]
        states = {name: _node_state(shown) for name, shown in zip(parts[::2], parts[1::2], strict=True)}
        return {name: state for name, state in states.items() if state is not None}

    def configuration(self, deadline: Deadline) -> str:
        """slurm.conf as slurmctld has it, a parameter a line. Raises UpstreamFailed, TimedOut."""
        return self._scontrol(["show", "config"], deadline).stdout.decode("utf-8", "replace")

    def drain(self, node: str, why: str, deadline: Deadline) -> None:
        """Take a node out of service: no other job starts there. Raises UpstreamFailed, TimedOut."""
        reason = plain(REASON + why, _MAX_REASON)
        self._scontrol(["update", f"nodename={node}", "state=drain", f"reason={reason}"], deadline)

    def resume(self, node: str, deadline: Deadline) -> None:
        """Bring a node back into service. Raises UpstreamFailed, TimedOut."""
        self._scontrol(["update", f"nodename={node}", "state=resume"], deadline)

    def _squeue(self, words: list[str], form: str, deadline: Deadline) -> list[str]:
        """Its lines; none where the one job that was asked for is gone."""
        done = self._run(self._settings.squeue, ["--noheader", *words, f"--Format={form}"], deadline)
        if done.exit_code and _GONE in done.stderr:
            return []
        return done.require_success().stdout.decode("utf-8", "replace").splitlines()

    def _scontrol(self, words: list[str], deadline: Deadline) -> Finished:
        return self._run(self._settings.scontrol, words, deadline).require_success()

    def _run(self, program: str, words: list[str], deadline: Deadline) -> Finished:
        seconds = deadline.left(self._settings.command_deadline)
        return run([program, *words], seconds=seconds, environment=self._environment)


def _queued(line: str) -> tuple[str, QueuedJob | None]:
    """A line of squeue: the job's id, and the job; None for any other line."""
    fields = line.split("|", 5)
    if len(fields) != 6:
        return "", None
    job, name, state, restarts, nodes, comment = fields
    name, comment = name.partition("+")[0], comment.strip()
    comment = "" if comment == "(null)" else comment
    is_component = "_" not in name and name != job
    return job, QueuedJob(name, state, max(0, number(restarts)), nodes, comment, is_component)


def _node_state(text: str) -> NodeState | None:
    """A node as scontrol shows it; None where it shows none."""
    found, reason, host = _STATE.search(text), _REASON.search(text), _HOST.search(text)
    if found is None:
        return None
    flags = frozenset(found[1].rstrip("*~#!%$@^-").split("+"))
    return NodeState(flags, reason[1] if reason else "", _since(reason), host[1] if host else "")


def _since(reason: re.Match[str] | None) -> int:
    """When a reason was given: Slurm shows local time."""
    if not reason or not reason[2]:
        return 0
    from datetime import datetime  # few nodes have one

    try:
        return int(datetime.fromisoformat(reason[2]).timestamp())
    except ValueError:
        return 0
