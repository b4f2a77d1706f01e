"""What Slurm says of one job, for `udi-admin job`: slurmctld, and with native Slurm the note on this node.

slurmctld shows no options of a plugin, so what image a job asks for is known once a node has its note.
"""

from __future__ import annotations

from collections.abc import Mapping

from admin.seams.asked import Asked, Fate
from jobs.notes import Notes
from jobs.state import JobState
from jobs.tries import FailedStarts
from slurm_hooks import commands
from slurm_hooks.hostlist import expand
from slurm_hooks.jobid import job_id
from slurm_hooks.settings import SlurmConfig
from slurm_hooks.starts import failures_in
from udi.command import Deadline
from udi.config import SiteConfig
from udi.nodes import named
from udi.sentences import sentence
from udi.values import replace
from udiroot.errors import UdiError

_WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT")
_AT_WORK = (*commands.RUNNING, commands.ENDING)
_FATES: Mapping[str, Fate] = {**dict.fromkeys(_WAITING, "queued"), **dict.fromkeys(_AT_WORK, "running")}


def placed(state: JobState, job: commands.QueuedJob | None) -> JobState:
    """What a node has of a job, with all the job's nodes: slurmctld knows the others, while it runs."""
    nodes = expand(job.nodes) if job and job.nodes and job.has_nodes else ()
    return replace(state, nodes=tuple(sorted(map(named, nodes)))) if nodes else state


def asked(site: SiteConfig, text: str, here: JobState | None) -> Asked:
    """The job, by its number; `here` is what this node has of it. Raises UsageError."""
    settings, job = site.table(SlurmConfig), job_id(text)
    slurm, deadline = commands.Slurm(settings), Deadline(settings.command_deadline)
    trouble, queued, said = "", None, dict[str, str]()
    try:
        queued = slurm.job(job, deadline)
        said = slurm.shown(job, deadline) if queued else {}
    except UdiError as error:
        trouble = f"slurmctld was not asked: {sentence(error)}"
    failed = _failed(queued.comment) if queued else None
    fate: Fate = "" if queued is None else _FATES.get(queued.state, "ended")
    note = Notes(settings.notes).read(job)
    return Asked(
        job,
        fate="held" if fate == "queued" and failed and failed.is_held else fate,
        user=said.get("user", "") or (here.user if here else ""),
        image=note.image or note.given if note else "",
        pin=note.id if note else "",
        release=f"scontrol release {job}",
        said=said,
        failed=failed,
        state=placed(here, queued) if here else None,
        failure=note.why if note else "",
        trouble=trouble,
    )


def _failed(comment: str) -> FailedStarts | None:
    """What our hooks wrote into the comment; since when, Slurm does not say."""
    failures = failures_in(comment)[1]
    if not failures.count:
        return None
    why = comment.partition(commands.REASON)[2].partition("): ")[2]
    return FailedStarts(failures.count, failures.is_held, why, 0)
