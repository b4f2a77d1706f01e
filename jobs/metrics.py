"""What the hooks of one host count: jobs started, refused and held, how long nodes took, what failed and whose it was.

A hook is one process for one step of one job. It counts in memory, and at its end adds that to a file which the site's
node_exporter reads (`udi.textfile`). Where `metrics.directory` is empty, nothing is counted. No count is worth a job:
what cannot be written is logged once, and lost.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from typing import Final, Literal

from udi.config import SiteConfig
from udi.metrics import Family, Tally, blame, blames
from udiroot.errors import UdiError
from udiroot.report import NodeReport

Outcome = Literal["ready", "refused", "requeued", "held", "ended"]
Phase = Literal["start", "end"]
FILE: Final = "udi-hooks.prom"
_log = logging.getLogger("udi.jobs")

_OF_A_JOB = (0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 45, 60, 90, 120, 300)
_OF_A_NODE = (0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20, 30, 60)
"""Seconds. A node's own work took 15 ms with all in its memory, and 0.28 s cold, Python's start included, which is not
observed here; it has `node.deadline`, 60 s. A job's includes reaching its nodes."""

STARTS = Family(
    "udi_job_starts_total",
    "counter",
    "Starts of jobs with an image, by what became of the job: ready to run, refused by an error of its user, requeued,"
    " held, or ended because it could not be requeued.",
    ("outcome",),
    (("ready",), ("refused",), ("requeued",), ("held",), ("ended",)),
)
FAILURES = Family(
    "udi_job_failures_total",
    "counter",
    "Starts and ends of jobs that failed, by cause (the class of the error) and by who must act.",
    ("phase", "cause", "owner"),
    tuple((phase, *pair) for phase in ("start", "end") for pair in blames()),
)
ENDS = Family(
    "udi_job_ends_total",
    "counter",
    "Jobs with an image that were taken down, by what they left: nothing, or nodes that are not known to be clean.",
    ("outcome",),
    (("clean",), ("dirty",)),
)
JOB_SETUP = Family(
    "udi_job_setup_seconds",
    "histogram",
    "Seconds from the image's lookup until the job's root was ready on all its nodes, for jobs that became ready.",
    buckets=_OF_A_JOB,
)
JOB_TEARDOWN = Family(
    "udi_job_teardown_seconds",
    "histogram",
    "Seconds until all nodes of a job had reported their teardown, or their silence was accepted.",
    buckets=_OF_A_JOB,
)
NODE_SETUP = Family(
    "udi_node_setup_seconds",
    "histogram",
    "Seconds that single nodes took to set up a job's root, as they reported them.",
    buckets=_OF_A_NODE,
)
NODE_TEARDOWN = Family(
    "udi_node_teardown_seconds",
    "histogram",
    "Seconds that single nodes took to remove a job's root, as they reported them.",
    buckets=_OF_A_NODE,
)
TAKEN_OUT = Family(
    "udi_nodes_taken_out_total",
    "counter",
    "Nodes that were taken out of service because they were not known to be clean after a job.",
)
DIRTY = Family(
    "udi_dirty_nodes",
    "gauge",
    "Nodes on record as not known to be clean: out of service, or left in service because too many failed at once.",
    ("state",),
    (("out_of_service",), ("in_service",)),
)
FAMILIES = (STARTS, FAILURES, ENDS, JOB_SETUP, JOB_TEARDOWN, NODE_SETUP, NODE_TEARDOWN, TAKEN_OUT, DIRTY)

_tally: Tally | None = None
"""What this process saw, where the site wants to know."""


def start_metrics(site: SiteConfig) -> None:
    """Count from now on, where the site has a place for it."""
    global _tally
    _tally = Tally() if site.metrics.directory else None


def count(family: Family, *values: str, by: float = 1) -> None:
    """A counter rises."""
    if _tally:
        _tally.count(family, *values, by=by)


def started(outcome: Outcome) -> None:
    """A start of a job ended so."""
    count(STARTS, outcome)


def failed(phase: Phase, error: UdiError) -> None:
    """A start or an end of a job failed."""
    count(FAILURES, phase, *blame(error))


def observe(family: Family, seconds: Iterable[float]) -> None:
    """A histogram gets these; they are not even computed where nothing is counted."""
    if _tally:
        _tally.observe(family, seconds)


def observe_nodes(family: Family, reports: Iterable[NodeReport]) -> None:
    """The same with the times of nodes that have done their work."""
    observe(family, (report.milliseconds / 1000 for report in reports if report.ok))


def publish(site: SiteConfig, *, has_records: bool = True) -> None:
    """Add what was counted to the file. Never raises: a hook's last step, after which its decision stands.

    `has_records` says that dirty nodes are on record at this host.
    """
    global _tally
    tally, _tally = _tally, None
    if tally is None:
        return
    try:
        _publish(site, tally, has_records=has_records)
    except Exception as error:  # noqa: BLE001 - whatever it is, a job must not fail for it
        _log.error("nothing was added to the metrics in %s: %s", site.metrics.directory, error)


def _publish(site: SiteConfig, tally: Tally, *, has_records: bool) -> None:
    from udi.textfile import Textfile  # used where metrics are on, and nowhere else

    families = FAMILIES if has_records else tuple(family for family in FAMILIES if family is not DIRTY)
    gauges = _dirty(site) if has_records else {}
    lock = f"{os.path.dirname(site.jobs.state)}/metrics.lock"
    Textfile(f"{site.metrics.directory}/{FILE}", lock, families).add(tally.samples, gauges)


def _dirty(site: SiteConfig) -> dict[str, float]:
    from nodehealth.records import count_dirty  # as above

    out, left = count_dirty(site)
    return {DIRTY.key("out_of_service"): out, DIRTY.key("in_service"): left}
