"""Taking dirty nodes out of service: the reason is kept first, then `xtprocadmin` marks them."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from alps.nids import folded
from alps.nodestates import set_state
from nodehealth.records import record
from udi.command import Deadline
from udi.config import SiteConfig

_log = logging.getLogger("udi.nodes")


def mark_admindown(site: SiteConfig, job: str, reasons: Mapping[int, str], deadline: Deadline) -> None:
    """Mark each node of `reasons` admindown.

    Raises UpstreamFailed or TimedOut when the nodes cannot be marked; their reasons are kept all the same, and
    `udi-admin status` shows that they are still in service.
    """
    if not reasons:
        return
    for nid, reason in sorted(reasons.items()):
        _log.error("%s stays dirty: %s", folded([nid]), reason)
    record(site, job, reasons, int(time.time()))
    set_state(site, sorted(reasons), "admindown", deadline)
    _log.warning("%s set admindown", folded(reasons))
