"""The table `[slurm]`: Slurm's commands, limits and directories."""

from __future__ import annotations

from typing import ClassVar

from udi.settings import FEW, OPTIONAL_PATH, PATH, SECONDS, Bounds, OneOf, setting
from udi.values import Frozen

HEALTH_LIMIT = 60
"""Seconds after which Slurm kills a HealthCheckProgram (slurm.conf(5))."""
UNDO_SECONDS = 20
"""What a Prolog may take beyond its deadline: undoing a set-up, telling Slurm."""
TELL_SECONDS = 20.0
"""What telling slurmctld has, where a hook's deadline leaves less."""


class SlurmConfig(Frozen, kw_only=True):
    """Slurm's commands and limits."""

    NAME: ClassVar[str] = "slurm"

    scontrol: str = setting("/usr/bin/scontrol", "Slurm's scontrol", PATH)
    squeue: str = setting("/usr/bin/squeue", "Slurm's squeue", PATH)
    conf: str = setting("", "slurm.conf, where Slurm's commands do not find it by themselves", OPTIONAL_PATH)
    over_alps: bool = setting(
        False, "whether Slurm starts jobs through ALPS, so that Prolog runs on a service node; unverified"
    )
    batch: str = setting("inside", "where batch scripts run: in the image or on the node", OneOf("inside", "outside"))
    command_deadline: int = setting(20, "seconds that one call of scontrol or squeue may take", SECONDS)
    prolog_deadline: int = setting(150, "seconds that Prolog may take", SECONDS)
    epilog_deadline: int = setting(150, "seconds that Epilog may take", SECONDS)
    health_deadline: int = setting(
        45, "seconds that the health check may take", Bounds(1, HEALTH_LIMIT - 10, unit="seconds")
    )
    max_starts: int = setting(3, "starts of a job in a row that fail by an error of the site before it is held", FEW)
    spool: str = setting(
        "/var/spool/slurmd",
        "SlurmdSpoolDir of slurm.conf, %n and %h included: batch scripts are shown in roots there",
        PATH,
    )
    notes: str = setting("/var/run/udi-slurm", "directory in which Prolog tells the plugin of each job", PATH)
    plugin: str = setting("/opt/udi/lib/udi.so", "the SPANK plugin, as installed on every host with Slurm", PATH)
    plugin_built: str = setting("/opt/udi/lib/slurm/udi.so", "the SPANK plugin as `make spank` built it", PATH)
    plugstack: str = setting("/etc/slurm/plugstack.conf", "Slurm's list of SPANK plugins", PATH)
    submit_deadline: int = setting(3600, "seconds that a submission may take, the image's pull included", SECONDS)

    @property
    def least_timeout(self) -> int:
        """The smallest PrologEpilogTimeout with which Slurm does not kill a hook that keeps its deadline."""
        return max(self.prolog_deadline, self.epilog_deadline) + UNDO_SECONDS + self.command_deadline
