"""`udi-prologue`: what pbs_mom runs as root before a job starts.

A job without an image needs nothing and costs one `qstat` (the installed wrapper exits before Python starts). For any
other job the root is set up on every node at the end, or nowhere, with an exit code by which Torque does the right
thing.
"""

from __future__ import annotations

import logging
import os
import stat
import sys
import time
from collections.abc import Callable, Sequence

from jobs.deadlines import require_fitting
from jobs.prepare import prepare
from jobs.tries import forget_hold, hold_after_tries
from torque_hooks.arguments import PrologueCall, config_and_rest, prologue_call
from torque_hooks.exit_codes import ABORT, REQUEUE, RUN, prologue_code
from torque_hooks.holds import Torque
from torque_hooks.pin import find_pin
from torque_hooks.process import catch_signals, clean_process, ignore_signals
from torque_hooks.qstat import TorqueJob, read_job
from torque_hooks.settings import TorqueConfig
from torque_hooks.userline import append_for, report, sentence
from torque_hooks.variables import IMAGE, is_requested, requested
from udi.accounts import Account, account_of
from udi.command import Deadline
from udi.config import SiteConfig, load
from udi.log import start_log
from udi.platform import Machine
from udi.request import Pin
from udiroot.errors import NotFound, UdiError, UpstreamFailed, UsageError, counted

PROGRAM = "udi-prologue"
QSTAT_ANSWER = "UDI_QSTAT_ANSWER"
"""The environment variable in which the installed wrapper passes what its own `qstat -x` printed."""
_log = logging.getLogger("udi.torque")
_MAX_SCRIPT_BYTES = 1 << 20
_BACKSTOP_SECONDS = 5
"""How long after the deadline the alarm rings, should something have missed the deadline."""
_REQUEUE_PAUSE = 3.0
"""Before a requeue of a job that is not held in the end: Torque would start it again within a quarter of a second."""


def main(machine_of: Callable[[SiteConfig], Machine], argv: Sequence[str] | None = None) -> int:
    """Run the prologue; the exit code is one of `torque_hooks.exit_codes`.

    `machine_of` makes the machine that a configuration describes, and raises ConfigError where that is wrong.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    answer = os.environb.get(QSTAT_ANSWER.encode(), b"")
    clean_process()
    try:
        config, arguments = config_and_rest(arguments)
        site = load(config)
        start_log(site, PROGRAM, arguments[0] if arguments else "")
        call = prologue_call(arguments)
        torque, machine = site.table(TorqueConfig), machine_of(site)
        require_fitting(site, machine, torque.prologue_deadline, "torque.prologue_deadline")
    except UdiError as error:
        report(PROGRAM, sentence(error))
        time.sleep(_REQUEUE_PAUSE)
        return REQUEUE
    except Exception as error:  # noqa: BLE001 - Python's own exit code is 1, by which Torque would delete the job
        report(PROGRAM, f"internal error: {type(error).__name__}")
        time.sleep(_REQUEUE_PAUSE)
        return REQUEUE
    catch_signals(torque.prologue_deadline + _BACKSTOP_SECONDS)
    return _Start(site, torque, machine, call, answer).run()


class _Start:
    """One start of one job."""

    def __init__(
        self, site: SiteConfig, torque: TorqueConfig, machine: Machine, call: PrologueCall, answer: bytes
    ) -> None:
        self._site = site
        self._torque = torque
        self._machine = machine
        self._call = call
        self._answer = answer
        self._job: TorqueJob | None = None
        self._deadline = Deadline(torque.prologue_deadline)

    def run(self) -> int:
        """Prepare the job, and turn the outcome into an exit code."""
        try:
            self._prepare()
        except UdiError as error:
            ignore_signals()
            return self._failed(error)
        except Exception:  # noqa: BLE001 - the last line of defence: a traceback is for the log, not for the user
            ignore_signals()
            _log.exception("internal error")
            return self._failed(UpstreamFailed("internal error; details are in the site's log of the hooks"))
        return RUN

    def _prepare(self) -> None:
        site, call = self._site, self._call
        self._job = job = read_job(self._torque, call.job, self._deadline, self._answer)
        pin = find_pin(site.registry, _script_text(call.script))
        if not is_requested(job.variables):
            _refuse_lost_variable(pin)
            return
        request = requested(site, job.id, _account(call.user), job.variables, pin)
        prepared = prepare(site, self._machine, request, job.hosts, self._deadline)
        forget_hold(site, job.id)
        if prepared.notice:
            report(PROGRAM, prepared.notice)

    def _failed(self, error: UdiError) -> int:
        """Report to the user, hold the job where its starts failed too often, and return what Torque shall do."""
        code = prologue_code(error)
        message = sentence(error)
        _log.error("start failed, exit code %d: %s", code, message)
        if code == REQUEUE:
            message = f"{message} [site error (not your job's fault); {self._after_requeue(error)}]"
        report(PROGRAM, message)
        if code == ABORT and self._job is not None:
            append_for(self._job, _account(self._call.user), PROGRAM, message)
        return code

    def _after_requeue(self, error: UdiError) -> str:
        most = self._torque.max_starts
        starts = self._job.starts if self._job else 0
        if hold_after_tries(self._site, Torque(self._torque), self._call.job, starts, most, error):
            return f"job held after {counted(starts, 'start')}"
        if self._job is None or starts >= most:
            time.sleep(_REQUEUE_PAUSE)
        return "job requeued"


def _refuse_lost_variable(pin: Pin | None) -> None:
    """A job that was submitted with an image must not run without it: qsub can drop a variable (cray-reference T62)."""
    if pin is not None:
        raise UsageError(
            f"the job was submitted with image {pin.reference}, but qsub lost its variable {IMAGE}",
            "qsub -v replaces the script's #PBS -v and can drop what follows an unset name; "
            f"submit with one list: qsub -v {IMAGE}={pin.reference},...",
        )


def _account(user: str) -> Account:
    """The job's owner. A job of an account that does not exist on this node is not the user's error."""
    try:
        return account_of(user)
    except NotFound as error:
        raise UpstreamFailed(error.message) from error


def _script_text(path: str) -> bytes:
    """The job script's beginning; empty where Torque names none, or none exists. Raises UpstreamFailed."""
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
            raise UpstreamFailed(f"the job's script {path} is not a regular file")
        return stream.read(_MAX_SCRIPT_BYTES)
