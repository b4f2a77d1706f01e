"""What Torque says of one job, for `udi-admin job`."""

from __future__ import annotations

import datetime
from collections.abc import Mapping

from admin.seams.asked import Asked, Fate
from jobs.tries import failed_starts
from torque_hooks.jobid import job_id
from torque_hooks.jobscript import script_of, script_text
from torque_hooks.pin import find_pin
from torque_hooks.qstat import read_fields, split_variables
from torque_hooks.settings import TorqueConfig
from torque_hooks.variables import IMAGE, MODULES, VOLUMES, is_requested
from udi.command import Deadline
from udi.config import SiteConfig
from udi.log import plain
from udi.sentences import sentence
from udiroot.errors import UdiError
from udiroot.fields import number

_FATES: Mapping[str, Fate] = {"Q": "queued", "W": "queued", "T": "queued", "H": "held", "C": "ended"}
"""Of the letters that qstat shows; any other is of a job that has started."""
_SHOWN = {
    "job_state": "state", "Hold_Types": "holds", "queue": "queue", "qtime": "queued", "start_time": "started",
    "start_count": "starts", "comp_time": "ended", "exit_status": "exit status", "comment": "comment",
    "Error_Path": "error file",
}  # fmt: skip
_TIMES = ("qtime", "start_time", "comp_time")
_MOST = 200


def asked(site: SiteConfig, text: str) -> Asked:
    """The job, by its number or its whole id. Raises UsageError."""
    torque, job = site.table(TorqueConfig), job_id(text)
    trouble, fields = "", None
    try:
        fields = read_fields(torque, job, Deadline(torque.command_deadline))
    except UdiError as error:
        trouble = f"Torque was not asked: {sentence(error)}"
    if fields is None:
        return Asked(job, release=f"qrls -h s {job}", failed=failed_starts(site, job), trouble=trouble)
    job = fields.get("Job_Id", job)
    variables = split_variables(fields.get("Variable_List", ""))
    image, volumes, modules = (plain(variables.get(name, ""), _MOST) for name in (IMAGE, VOLUMES, MODULES))
    return Asked(
        job,
        fate=_FATES.get(fields.get("job_state", ""), "running"),
        user=plain(fields.get("Job_Owner", "").partition("@")[0], _MOST),
        image=image if is_requested(variables) else "",
        volumes=volumes,
        modules=modules,
        pin=_pin(site, torque, job),
        release=f"qrls -h s {job}",
        said={name: _shown(key, fields[key]) for key, name in _SHOWN.items() if fields.get(key)},
        failed=failed_starts(site, job),
        trouble=trouble,
    )


def _pin(site: SiteConfig, torque: TorqueConfig, job: str) -> str:
    """The image's id in the script, which this host has while the job is on it."""
    try:
        pin = find_pin(site.registry, script_text(script_of(torque, job)))
    except UdiError:
        return ""
    return pin.id if pin else ""


def _shown(key: str, text: str) -> str:
    seconds = number(text) if key in _TIMES else -1
    if 0 <= seconds < 1 << 37:
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return plain(text, _MOST)
