"""Taking dirty nodes out of service, and how many nodes one fan-out may take.

The reason is kept first, then the machine marks the nodes. Where too many nodes fail at once, the cause is not in the
nodes: none is taken, so that one job cannot drain a machine. Such a node stays in service with its reason kept; a
set-up refuses what is left there, and the check that the machine's own health checker runs finds it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from nodehealth.records import NotRecorded, record
from udi.command import Deadline
from udi.config import SiteConfig
from udi.fanout import FanOutResult
from udi.logformat import event
from udi.nodes import Node, in_brief
from udi.nodesummary import causes
from udi.platform import Machine

_log = logging.getLogger("udi.nodes")


def too_many(site: SiteConfig, result: FanOutResult) -> str:
    """Why none of the nodes that failed in this fan-out may be taken out of service; empty where they may.

    Of several nodes, not one made a report: that is a fault of what reaches or starts them. Or more failed than
    `jobs.max_nodes_out` and `jobs.max_percent_out` allow, whichever allows more. A job's only node may be taken.
    """
    asked, failed = len(result.asked), len(result.errors())
    if failed == asked > 1 and not result.reports:
        return f"not one of its {asked} nodes {'could start it' if not result.silent else 'made a report'}"
    most = max(site.jobs.max_nodes_out, asked * site.jobs.max_percent_out // 100)
    if failed > most:
        return f"it failed on {failed} of {asked} nodes, and jobs.max_nodes_out and jobs.max_percent_out allow {most}"
    return ""


def take_out_of_service(
    site: SiteConfig, machine: Machine, job: str, reasons: Mapping[Node, str], deadline: Deadline
) -> None:
    """Take each node of `reasons` out of service.

    Raises UpstreamFailed or TimedOut when the nodes cannot be marked; their reasons are kept all the same, and
    `udi-admin status` shows that they are still in service. Raises NotRecorded when the nodes were marked and the
    reasons cannot be kept.
    """
    if not reasons:
        return
    _report(reasons)
    lost: NotRecorded | None = None
    try:
        record(site, job, reasons, int(time.time()))
    except NotRecorded as error:
        _log.error("why %s are dirty is not on record: %s", in_brief(reasons), error.message)
        lost = error
    machine.take_out_of_service(sorted(reasons), reasons, deadline)
    where = in_brief(reasons)
    _log.warning("%s taken out of service", where, extra=event("out of service", nodes=where, count=len(reasons)))
    if lost:
        raise lost


def leave_in_service(site: SiteConfig, job: str, reasons: Mapping[Node, str], why: str) -> None:
    """Keep the reasons of nodes that are not taken out of service because they are too many.

    Raises UpstreamFailed when the reasons cannot be kept.
    """
    _report(reasons)
    where = in_brief(reasons)
    _log.error(
        "%s left in service: %s; check node.python, node.zip and the network to the nodes, then run "
        "udi-admin recover %s",
        where,
        why,
        where if ",+" not in where else "for each node that udi-admin status shows",
        extra=event("out of service", message=f"left in service: {why}", nodes=where, count=len(reasons)),
    )
    record(site, job, reasons, int(time.time()), in_service=True)


def _report(reasons: Mapping[Node, str]) -> None:
    for cause in causes(reasons):
        message = "not known to be clean"
        fields = event("teardown", message=message, nodes=cause.where, count=len(cause.nodes), cause=str(cause))
        _log.error("%s not known to be clean: %s", cause.where, cause, extra=fields)
