"""The table `[torque]`: Torque's commands, limits and directories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from udi.settings import PATH, POSITIVE, SECONDS, setting


@dataclass(frozen=True, kw_only=True)
class TorqueConfig:
    """Torque's commands and limits."""

    NAME: ClassVar[str] = "torque"

    qstat: str = setting("/usr/bin/qstat", "Torque's qstat", PATH)
    qhold: str = setting("/usr/bin/qhold", "Torque's qhold", PATH)
    command_deadline: int = setting(20, "seconds that one call of qstat or qhold may take", SECONDS)
    prologue_deadline: int = setting(
        150, "seconds that the prologue may take; at least ten less than $prologalarm", SECONDS
    )
    epilogue_deadline: int = setting(150, "seconds that the epilogue may take", SECONDS)
    max_starts: int = setting(3, "starts of a job after which a site error holds it", POSITIVE)
    mom_priv: str = setting("/var/spool/torque/mom_priv", "directory in which the hooks are installed", PATH)
    server_home: str = setting("/var/spool/torque", "directory of torque.cfg", PATH)
