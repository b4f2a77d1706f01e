"""What slurmd passes to Prolog and Epilog: variables, and no arguments. Those that begin with SPANK_ are user text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from slurm_hooks.jobid import job_id
from udi.config import DEFAULT_PATH
from udi.values import Frozen
from udiroot.errors import UpstreamFailed, UsageError, printable
from udiroot.fields import number

IMAGE, IMAGE_ID, VOLUMES, MODULES = "SPANK_UDI_IMAGE", "SPANK_UDI_ID", "SPANK_UDI_VOLUMES", "SPANK_UDI_MODULES"
"""Set by the plugin at submission: the image as the user wrote it, its id then or `-`, the volumes and the modules."""
CARRIED = "SPANK_UDI_RUN"
"""The same for what the job carries of an environment file."""
RESERVATION = "BASIL_RESERVATION_ID"
"""The id of the job's reservation, where Slurm made one of ALPS (cray-reference T22)."""
_CALLER = "slurmd runs this program"


class HookCall(Frozen):
    """A job on a node, as slurmd describes it. `start` is how often the job was started before; `nodes` and `cpus` are
    Slurm's lists, and `node_count` is how many nodes the job has, 0 where that is not said; `conf` is slurmd's
    slurm.conf. `cluster` is its name."""

    job: str
    uid: int
    node: str
    start: int = 0
    nodes: str = ""
    cpus: str = ""
    node_count: int = 0
    conf: str = ""
    image: str = ""
    image_id: str = ""
    volumes: str = ""
    modules: str = ""
    carried: str = ""
    reservation: str = ""
    cluster: str = ""


def hook_call(environment: Mapping[str, str]) -> HookCall:
    """The call that an environment describes. Raises UpstreamFailed: what is missing or wrong is not the user's."""
    try:
        job = job_id(environment.get("SLURM_JOB_ID", ""))
    except UsageError as error:
        raise UpstreamFailed(f"SLURM_JOB_ID: {error.message}", _CALLER) from error
    uid, node = environment.get("SLURM_JOB_UID", ""), environment.get("SLURMD_NODENAME", "")
    if number(uid) < 0:
        raise UpstreamFailed(f"not a uid in SLURM_JOB_UID: '{printable(uid)}'", _CALLER)
    return HookCall(
        job,
        number(uid),
        node,
        start=max(0, number(environment.get("SLURM_JOB_RESTART_COUNT", "0"))),
        nodes=environment.get("SLURM_NODELIST", "") or environment.get("SLURM_JOB_NODELIST", "") or node,
        cpus=environment.get("SLURM_JOB_CPUS_PER_NODE", ""),
        node_count=max(0, number(environment.get("SLURM_JOB_NUM_NODES", "0"))),
        conf=environment.get("SLURM_CONF", ""),
        image=environment.get(IMAGE, ""),
        image_id=environment.get(IMAGE_ID, ""),
        volumes=environment.get(VOLUMES, ""),
        modules=environment.get(MODULES, ""),
        carried=environment.get(CARRIED, ""),
        reservation=environment.get(RESERVATION, ""),
        cluster=environment.get("SLURM_CLUSTER_NAME", ""),
    )


class Arguments(Frozen):
    """What the installed wrappers pass: the configuration, and the directory of notes for when that cannot be read."""

    config: str = DEFAULT_PATH
    notes: str = ""


def arguments(words: Sequence[str]) -> Arguments:
    """The arguments. Raises UsageError."""
    given = dict(zip(words[::2], words[1::2], strict=False))
    if len(words) % 2 or not given.keys() <= {"--config", "--notes"}:
        raise UsageError(f"invalid arguments: {printable(' '.join(words))}", _CALLER)
    return Arguments(given.get("--config", DEFAULT_PATH), given.get("--notes", ""))
