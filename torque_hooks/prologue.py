"""`udi-prologue`: what pbs_mom runs as root before a job starts.

A job without UDI is none of ours and costs one `qstat` (the installed wrapper spares it Python). For the others it ends
with the root set up on every node, or with nothing set up and an exit code by which Torque does the right thing.
"""

from __future__ import annotations

import logging
import os
import stat
import sys
import time
from collections.abc import Sequence

from jobs.prepare import prepare
from jobs.tries import forget_hold, hold_after_tries
from torque_hooks.arguments import PrologueCall, config_and_rest, prologue_call
from torque_hooks.exit_codes import ABORT, REQUEUE, RUN, prologue_code
from torque_hooks.holds import Torque
from torque_hooks.process import clean_process, ignore_ends, notice_ends
from torque_hooks.qstat import TorqueJob, read_job
from torque_hooks.userline import append_for, sentence, tell
from udi.accounts import Account, account_of
from udi.command import Deadline
from udi.config import SiteConfig, load
from udi.log import start_log
from udi.request import Pin, find_pin, is_requested, job_request
from udiroot.errors import NotFound, UdiError, UpstreamFailed, UsageError

PROGRAM = "udi-prologue"
_log = logging.getLogger("udi.torque")
_MAX_SCRIPT_BYTES = 1 << 20
_BACKSTOP_SECONDS = 5
"""How long after the deadline the alarm rings, should something not have heeded the deadline."""
_REQUEUE_PAUSE = 3.0
"""Before a requeue of a job that is not held in the end: Torque would start it again within a quarter of a second."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the prologue; the exit code is one of `torque_hooks.exit_codes`."""
    words = list(sys.argv[1:] if argv is None else argv)
    clean_process()
    try:
        config, arguments = config_and_rest(words)
        site = load(config)
        start_log(site, PROGRAM, arguments[0] if arguments else "")
        call = prologue_call(arguments)
    except UdiError as error:
        tell(PROGRAM, sentence(error))
        time.sleep(_REQUEUE_PAUSE)
        return REQUEUE
    except Exception as error:  # noqa: BLE001 - Python's own exit code is 1, by which Torque would delete the job
        tell(PROGRAM, f"internal error: {type(error).__name__}")
        time.sleep(_REQUEUE_PAUSE)
        return REQUEUE
    notice_ends(site.torque.prologue_deadline + _BACKSTOP_SECONDS)
    return _Start(site, call).run()


class _Start:
    """One start of one job."""

    def __init__(self, site: SiteConfig, call: PrologueCall) -> None:
        self._site = site
        self._call = call
        self._job: TorqueJob | None = None
        self._deadline = Deadline(site.torque.prologue_deadline)

    def run(self) -> int:
        """Do it, and turn whatever comes of it into an exit code."""
        try:
            self._prepare()
        except UdiError as error:
            ignore_ends()
            return self._failed(error)
        except Exception:  # noqa: BLE001 - the last line of defence: a traceback is for the log, not for the user
            ignore_ends()
            _log.exception("internal error")
            return self._failed(UpstreamFailed("internal error; the site's log of the hooks has the details"))
        return RUN

    def _prepare(self) -> None:
        site, call = self._site, self._call
        self._job = job = read_job(site, call.job, self._deadline)
        pin = find_pin(_script_text(call.script))
        if not is_requested(job.variables):
            _refuse_lost_variable(pin)
            return
        request = job_request(job.id, _account(call.user), job.variables, pin, site.volumes)
        prepared = prepare(site, request, job.has_nodes, self._deadline)
        forget_hold(site, job.id)
        if prepared.notice:
            tell(PROGRAM, prepared.notice)

    def _failed(self, error: UdiError) -> int:
        """Tell the user, hold the job where its site failed it too often, and say what Torque shall do."""
        code = prologue_code(error)
        words = sentence(error)
        _log.error("start failed, exit code %d: %s", code, words)
        if code == REQUEUE:
            words = f"{words} [{self._after_requeue(error)}]"
        tell(PROGRAM, words)
        if code == ABORT and self._job is not None:
            append_for(self._job, _account(self._call.user), PROGRAM, words)
        return code

    def _after_requeue(self, error: UdiError) -> str:
        most = self._site.torque.max_starts
        starts = self._job.starts if self._job else 0
        if hold_after_tries(self._site, Torque(self._site), self._call.job, starts, most, error):
            return f"a fault of the site: the job is held after {starts} starts"
        if self._job is None or starts >= most:
            time.sleep(_REQUEUE_PAUSE)
        return "a fault of the site: the job will be tried again"


def _refuse_lost_variable(pin: Pin | None) -> None:
    """A job that asked for an image when it was submitted must not run without it: qsub can drop a variable (T62)."""
    if pin is not None:
        raise UsageError(
            f"the job was submitted for image {pin.reference}, but its variable UDI was lost on the way",
            "qsub -v replaces the script's #PBS -v and can drop what follows an unset name; "
            f"submit with one list: qsub -v UDI={pin.reference},...",
        )


def _account(user: str) -> Account:
    """The job's owner. That Torque runs a job of someone whom this node does not know is not the user's fault."""
    try:
        return account_of(user)
    except NotFound as error:
        raise UpstreamFailed(error.message) from error


def _script_text(path: str) -> bytes:
    """The job script's beginning; empty where Torque names none, or none is there. Raises UpstreamFailed."""
    if not path:
        return b""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise UpstreamFailed(f"the job's script {path} cannot be read: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UpstreamFailed(f"the job's script {path} is not a file")
        return stream.read(_MAX_SCRIPT_BYTES)


if __name__ == "__main__":
    sys.exit(main())
