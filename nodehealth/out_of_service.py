"""Taking dirty nodes out of service: the reason is kept first, then the machine marks them."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from nodehealth.records import record
from udi.command import Deadline
from udi.config import SiteConfig
from udi.nodes import Node, folded
from udi.platform import Machine

_log = logging.getLogger("udi.nodes")


def take_out_of_service(
    site: SiteConfig, machine: Machine, job: str, reasons: Mapping[Node, str], deadline: Deadline
) -> None:
    """Take each node of `reasons` out of service.

    Raises UpstreamFailed or TimedOut when the nodes cannot be marked; their reasons are kept all the same, and
    `udi-admin status` shows that they are still in service.
    """
    if not reasons:
        return
    for node in sorted(reasons):
        _log.error("%s stays dirty: %s", node, reasons[node])
    record(site, job, reasons, int(time.time()))
    machine.take_out_of_service(sorted(reasons), reasons, deadline)
    _log.warning("%s taken out of service", folded(reasons))
