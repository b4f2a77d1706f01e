"""The table `[alps]`: Cray's commands, and how long they may take."""

from __future__ import annotations

from typing import ClassVar

from udi.settings import PATH, PAUSE, SECONDS, OneOf, setting
from udi.values import Frozen


class AlpsConfig(Frozen, kw_only=True):
    """ALPS and the commands of its service nodes."""

    NAME: ClassVar[str] = "alps"

    apstat: str = setting("/opt/cray/alps/default/bin/apstat", "ALPS's status command", PATH)
    apbasil: str = setting("/opt/cray/alps/default/bin/apbasil", "ALPS's BASIL client", PATH)
    basil_protocol: str = setting(
        "1.3",
        "BASIL version that the site's ALPS speaks",
        OneOf("1.0", "1.1", "1.2", "1.3", "1.4", "1.5", "1.6", "1.7"),
    )
    sources: tuple[str, ...] = setting(
        ["apstat", "basil"], "where a reservation is looked up, in this order", OneOf("apstat", "basil"), filled=True
    )
    reservation_wait: int = setting(15, "seconds to wait for a reservation that is not listed yet", PAUSE)
    xtxqtcmd: str = setting("/opt/cray/nodehealth/default/bin/xtxqtcmd", "command that runs a line on nodes", PATH)
    xtprocadmin: str = setting("/opt/cray/sdb/default/bin/xtprocadmin", "command that shows and sets node states", PATH)
    command_deadline: int = setting(20, "seconds that one call of apstat, apbasil or xtprocadmin may take", SECONDS)
    fanout_deadline: int = setting(90, "seconds that a fan-out to all nodes of a job may take", SECONDS)
