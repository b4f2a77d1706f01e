"""`udi-epilogue`: what pbs_mom runs as root after a job, and also after a prologue that failed.

Needs nobody but the job's own state: the reservation may be gone (cray-reference 4.2). A job without state is none of
ours, or was taken down already; running twice is harmless. Torque only logs the exit code.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from alps.nids import folded
from jobs.takedown import Takedown, take_down
from torque_hooks.arguments import config_and_rest, epilogue_call
from torque_hooks.process import clean_process, ignore_ends, notice_ends
from torque_hooks.userline import sentence, tell
from udi.command import Deadline
from udi.config import load
from udi.log import start_log
from udiroot.errors import TeardownIncomplete, UdiError

PROGRAM = "udi-epilogue"
_log = logging.getLogger("udi.torque")
_INTERNAL_ERROR = 70
_BACKSTOP_SECONDS = 5


def main(argv: Sequence[str] | None = None) -> int:
    """Run the epilogue. 0 when every node is clean or out of service, else the error's exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    clean_process()
    try:
        config, arguments = config_and_rest(words)
        site = load(config)
        start_log(site, PROGRAM, arguments[0] if arguments else "")
        call = epilogue_call(arguments)
        notice_ends(site.torque.epilogue_deadline + _BACKSTOP_SECONDS)
        done = take_down(site, call.job, Deadline(site.torque.epilogue_deadline))
        ignore_ends()
    except UdiError as error:
        ignore_ends()
        _log.error("takedown failed, exit code %d: %s", error.exit_code, sentence(error))
        tell(PROGRAM, sentence(error))
        return error.exit_code
    except Exception:  # noqa: BLE001 - the last line of defence: a traceback is for the log, not for the user
        ignore_ends()
        _log.exception("internal error")
        tell(PROGRAM, "internal error; the site's log of the hooks has the details")
        return _INTERNAL_ERROR
    return _tell(done)


def _tell(done: Takedown) -> int:
    """One line where a node stayed dirty, so that the user knows why it will be missing; nothing where all is well."""
    if done.is_clean:
        return 0
    if done.trouble:
        error = TeardownIncomplete(f"{folded(done.dirty)} not clean, and not out of service: {done.trouble.message}")
        tell(PROGRAM, sentence(error))
        return error.exit_code
    tell(PROGRAM, f"{folded(done.dirty)} could not be cleaned after the job; the site takes care of it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
