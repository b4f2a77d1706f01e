"""`udi-slurm-health`: what slurmd runs as root now and then, by HealthCheckProgram.

A node that has something of a job that no longer runs there is drained with the reason. Slurm only logs the exit code
and kills a check after a minute, so the check drains by itself; where slurmctld does not answer, it drains nothing,
since any job may run.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from jobs.process import Interrupted, catch_signals, clean_process, ignore_signals
from slurm_hooks.call import arguments
from slurm_hooks.commands import Slurm
from slurm_hooks.leaks import examine, in_words
from slurm_hooks.settings import SlurmConfig
from udi.command import Deadline
from udi.config import load
from udi.log import start_log
from udi.sentences import sentence
from udiroot.errors import UdiError, UpstreamFailed

PROGRAM = "udi-slurm-health"
_log = logging.getLogger("udi.slurm")
_LEAKED = 1
_INTERNAL_ERROR = 70


def main(argv: Sequence[str] | None = None) -> int:
    """Examine this node. 0 where it is clean or busy, 1 where it was drained, else the exit code of the error."""
    words = list(sys.argv[1:] if argv is None else argv)
    node, conf = os.environ.get("SLURMD_NODENAME", ""), os.environ.get("SLURM_CONF", "")
    clean_process()
    catch_signals()
    start_log(None, PROGRAM)
    try:
        return _checked(arguments(words).config, node, conf)
    except UdiError as error:
        _log.error("%s", sentence(error))
        return error.exit_code
    except Interrupted as error:
        _log.error("%s", error)
        return _INTERNAL_ERROR
    except Exception:  # noqa: BLE001 - the last line of defence: a traceback is for the log
        _log.exception("internal error")
        return _INTERNAL_ERROR


def _checked(config: str, node: str, conf: str) -> int:
    site = load(config)
    start_log(site, PROGRAM)
    settings = site.table(SlurmConfig)
    if settings.over_alps:
        return 0  # this is a service node: nothing of a job's root is on it
    if not node:
        raise UpstreamFailed("SLURMD_NODENAME is not set", "slurmd runs this program")
    catch_signals(settings.health_deadline)
    slurm, deadline = Slurm(settings, conf), Deadline(settings.health_deadline)
    found = examine(site, slurm, node, deadline)
    if found.unknown:
        _log.warning("jobs could not be told from what they left: %s", found.unknown)
    if not found.leaked:
        return 0
    why = in_words(site, found.leaked)
    ignore_signals()
    if not slurm.node(node, deadline).is_drained:
        slurm.drain(node, why, deadline)
        _log.error("node drained: %s", why)
    return _LEAKED
