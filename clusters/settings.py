"""The table `[clusters]`: the hosts of a cluster, and how ssh reaches them."""

from __future__ import annotations

from typing import ClassVar

from udi.settings import PATH, SECONDS, WORD, Bounds, setting
from udi.values import Frozen
from udiroot.errors import ConfigError


class ClustersConfig(Frozen, kw_only=True):
    """A machine that is a list of hosts reached by ssh."""

    NAME: ClassVar[str] = "clusters"

    nodes: str = setting("", "compute nodes by the names that they have themselves (uname -n), as c[001-128]")
    ssh: tuple[str, ...] = setting(
        ["/usr/bin/ssh", "-oBatchMode=yes", "-oConnectTimeout=10"], "the ssh command, options included"
    )
    user: str = setting("root", "account on the nodes", WORD)
    window: int = setting(64, "ssh connections at the same time", Bounds(1, 512))
    fanout_deadline: int = setting(90, "seconds that a fan-out to all nodes of a job may take", SECONDS)
    command_deadline: int = setting(20, "seconds to wait for another process that changes out_of_service", SECONDS)
    out_of_service: str = setting(
        "/var/spool/udi/out-of-service.json", "list of the nodes that are out of service, for root only", PATH
    )

    def check(self) -> None:
        """Raises ConfigError for an ssh command that is not an absolute path and options."""
        if not self.ssh or not self.ssh[0].startswith("/"):
            raise ConfigError("ssh must begin with the absolute path of a program")
