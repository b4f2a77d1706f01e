"""`udi-epilogue`: what pbs_mom runs as root after a job, and also after a prologue that failed.

Needs nothing but the job's own state: the reservation may no longer exist (cray-reference 4.2). A job without state had
no image, or was taken down already; running twice is harmless. Torque only logs the exit code.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence

from jobs.takedown import Takedown, take_down
from torque_hooks.arguments import config_and_rest, epilogue_call
from torque_hooks.process import catch_signals, clean_process, ignore_signals
from torque_hooks.settings import TorqueConfig
from torque_hooks.userline import report, sentence
from udi.command import Deadline
from udi.config import SiteConfig, load
from udi.log import start_log
from udi.nodes import folded
from udi.platform import Machine
from udiroot.errors import TeardownIncomplete, UdiError

PROGRAM = "udi-epilogue"
_log = logging.getLogger("udi.torque")
_INTERNAL_ERROR = 70
_BACKSTOP_SECONDS = 5


def main(machine_of: Callable[[SiteConfig], Machine], argv: Sequence[str] | None = None) -> int:
    """Run the epilogue. 0 when every node is clean or out of service, else the error's exit code.

    `machine_of` makes the machine that a configuration describes, and raises ConfigError where that is wrong.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    clean_process()
    try:
        config, arguments = config_and_rest(arguments)
        site = load(config)
        start_log(site, PROGRAM, arguments[0] if arguments else "")
        call = epilogue_call(arguments)
        seconds = site.table(TorqueConfig).epilogue_deadline
        machine = machine_of(site)
        catch_signals(seconds + _BACKSTOP_SECONDS)
        done = take_down(site, machine, call.job, Deadline(seconds))
        ignore_signals()
    except UdiError as error:
        ignore_signals()
        _log.error("takedown failed, exit code %d: %s", error.exit_code, sentence(error))
        report(PROGRAM, sentence(error))
        return error.exit_code
    except Exception:  # noqa: BLE001 - the last line of defence: a traceback is for the log, not for the user
        ignore_signals()
        _log.exception("internal error")
        report(PROGRAM, "internal error; details are in the site's log of the hooks")
        return _INTERNAL_ERROR
    return _reported(done)


def _reported(done: Takedown) -> int:
    """One line where a node stayed dirty, so that the user knows why it is missing later; else nothing."""
    if done.is_clean:
        return 0
    if done.error:
        error = TeardownIncomplete(
            f"cleanup failed on {folded(done.dirty)}, which could not be taken out of service: {done.error.message}"
        )
        report(PROGRAM, sentence(error))
        return error.exit_code
    report(PROGRAM, f"cleanup failed on {folded(done.dirty)}; taken out of service, no action needed")
    return 0
