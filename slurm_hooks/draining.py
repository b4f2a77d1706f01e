"""Draining the node that a hook runs on, which must be tried however little time is left."""

from __future__ import annotations

import logging

from jobs import metrics
from slurm_hooks.commands import Slurm
from slurm_hooks.settings import TELL_SECONDS
from udi.command import Deadline
from udiroot.errors import UdiError

_log = logging.getLogger("udi.slurm")


def drain(slurm: Slurm, node: str, why: str, deadline: Deadline) -> UdiError | None:
    """Take the node out of service; the error where that failed. Either is logged."""
    try:
        slurm.drain(node, why, Deadline(max(TELL_SECONDS, deadline.left())))
    except UdiError as refused:
        _log.error("the node could not be drained: %s", refused.message)
        return refused
    _log.error("node drained: %s", why)
    metrics.count(metrics.TAKEN_OUT)
    return None
