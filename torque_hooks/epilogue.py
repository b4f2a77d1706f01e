"""`udi-epilogue`: what pbs_mom runs as root after a job, and also after a prologue that failed.

Needs nothing but the job's own state: the reservation may no longer exist (cray-reference 4.2). A job without state had
no image, or was taken down already; running twice is harmless. Torque only logs the exit code. Nobody else takes the
job down, so no signal but the hook's own alarm ends it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence

from jobs import metrics
from jobs.process import Interrupted, catch_alarm, clean_process, ignore_signals
from jobs.takedown import Takedown, take_down
from torque_hooks.arguments import config_and_rest, epilogue_call
from torque_hooks.settings import TorqueConfig
from udi.command import Deadline
from udi.config import SiteConfig, load
from udi.log import start_log
from udi.nodes import in_brief
from udi.platform import Machine
from udi.sentences import report, sentence
from udiroot.errors import TeardownIncomplete, TimedOut, UdiError, printable

PROGRAM = "udi-epilogue"
_log = logging.getLogger("udi.torque")
_INTERNAL_ERROR = 70
_BACKSTOP_SECONDS = 5
_FATES = {False: "which could not be taken out of service", True: "taken out of service without a record"}
_NOT_ENTERED = (
    ": nothing was read from it on any node (only aprun enters it, and not where the script or your own profile sets"
    " CRAY_ROOTFS)"
)


def main(machine_of: Callable[[SiteConfig], Machine], argv: Sequence[str] | None = None) -> int:
    """Run the epilogue. 0 when every node is clean or out of service, else the error's exit code; also where too many
    nodes failed to take them out of service.

    `machine_of` makes the machine that a configuration describes, and raises ConfigError where that is wrong.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    site: SiteConfig | None = None
    try:
        clean_process()
        catch_alarm(0)
        start_log(None, PROGRAM)
        config, arguments = config_and_rest(arguments)
        site = load(config)
        start_log(site, PROGRAM, arguments[0] if arguments else "")
        metrics.start_metrics(site)
        call = epilogue_call(arguments)
        seconds = site.table(TorqueConfig).epilogue_deadline
        machine = machine_of(site)
        catch_alarm(seconds + _BACKSTOP_SECONDS)
        done = take_down(site, machine, call.job, Deadline(seconds))
        ignore_signals()
    except (UdiError, Interrupted) as error:
        ignore_signals()
        code = _failed(error if isinstance(error, UdiError) else TimedOut(str(error)))
    except Exception:  # noqa: BLE001 - the last line of defence: a traceback is for the log, not for the user
        ignore_signals()
        _log.exception("internal error")
        report(PROGRAM, "internal error; details are in the site's log of the hooks")
        code = _INTERNAL_ERROR
    else:
        code = _reported(done)
    if site:
        metrics.publish(site)
    return code


def _failed(error: UdiError) -> int:
    metrics.failed("end", error)
    _log.error("takedown failed, exit code %d: %s", error.exit_code, sentence(error))
    report(PROGRAM, sentence(error))
    return error.exit_code


def _reported(done: Takedown) -> int:
    """One line where a node stayed dirty, so that the user knows why it is missing later, or where the image was not
    used; else nothing."""
    if done.is_clean:
        if done.unread:
            report(PROGRAM, f"no program of this job ran in its image {printable(done.unread)}{_NOT_ENTERED}")
        return 0
    if done.error:
        fate = "left in service" if done.spared else _FATES[done.is_out_of_service]
        error = TeardownIncomplete(f"cleanup failed on {in_brief(done.dirty)}, {fate}: {done.error.message}")
        return _failed(error)
    metrics.failed("end", TeardownIncomplete(""))
    if done.spared:
        report(PROGRAM, f"cleanup failed on {in_brief(done.dirty)} by a site error; no action needed")
        return TeardownIncomplete.exit_code
    report(PROGRAM, f"cleanup failed on {in_brief(done.dirty)}; taken out of service, no action needed")
    return 0
