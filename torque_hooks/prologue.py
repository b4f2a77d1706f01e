"""`udi-prologue`: what pbs_mom runs as root before a job starts.

A job without an image needs nothing and costs one `qstat` (the installed wrapper exits before Python starts). For any
other job the root is set up on every node at the end, or nowhere, with an exit code by which Torque does the right
thing.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Sequence

from jobs import metrics
from jobs.deadlines import require_fitting
from jobs.prepare import prepare
from jobs.process import Interrupted, Orphaned, catch_signals, clean_process, end_with, ignore_signals, pause
from jobs.tries import forget_hold, hold_after_tries
from torque_hooks.arguments import PrologueCall, config_and_rest, prologue_call
from torque_hooks.exit_codes import ABORT, REQUEUE, RUN, prologue_code
from torque_hooks.holds import Torque
from torque_hooks.jobid import job_id
from torque_hooks.jobscript import script_of, script_text
from torque_hooks.pin import CARRIED_PREFIX, PIN_PREFIX, carried_text, find_pin
from torque_hooks.qstat import TorqueJob, read_job
from torque_hooks.settings import TorqueConfig
from torque_hooks.variables import IMAGE, is_requested, requested
from udi.accounts import Account, account_of
from udi.command import Deadline
from udi.config import SiteConfig, StoreConfig, load
from udi.log import start_log
from udi.platform import Machine
from udi.request import Pin
from udi.sentences import report, sentence
from udiroot.errors import ConfigError, NotFound, TimedOut, UdiError, UpstreamFailed, UsageError, counted

PROGRAM = "udi-prologue"
QSTAT_ANSWER = "UDI_QSTAT_ANSWER"
"""The environment variable in which the installed wrapper passes what its own `qstat -x` printed."""
CALLER = "UDI_CALLER"
"""The same for the wrapper's own process id."""
NAMED = f"{IMAGE}=|-v(.*[^A-Za-z0-9_])?{IMAGE}([^A-Za-z0-9_]|$)"
"""What a script has in it that names the variable: for grep, and for Python with MULTILINE."""
_log = logging.getLogger("udi.torque")
_BACKSTOP_SECONDS = 35
"""How long after the deadline the alarm rings, should something have missed the deadline; a set-up that failed at the
last moment may be undone in that time."""
REQUEUE_PAUSE = 3.0
"""Before a requeue where starts cannot be counted: Torque would start the job again within a quarter of a second."""


def main(machine_of: Callable[[SiteConfig], Machine], argv: Sequence[str] | None = None) -> int:
    """Run the prologue; the exit code is one of `torque_hooks.exit_codes`.

    `machine_of` makes the machine that a configuration describes, and raises ConfigError where that is wrong.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    answer, caller = (os.environb.get(name.encode(), b"") for name in (QSTAT_ANSWER, CALLER))
    try:
        return _run(machine_of, arguments, answer, int(caller) if caller.isdigit() else 0)
    except BaseException as error:  # noqa: BLE001 - a signal can come at any moment, also while an error is handled
        ignore_signals()
        return _not_begun(None, arguments, answer, _as_error(error))


def _run(machine_of: Callable[[SiteConfig], Machine], arguments: Sequence[str], answer: bytes, caller: int) -> int:
    clean_process()
    catch_signals()
    site: SiteConfig | None = None
    try:
        if caller:
            end_with(caller)
        start_log(None, PROGRAM)
        config, arguments = config_and_rest(arguments)
        site = load(config)
        start_log(site, PROGRAM, arguments[0] if arguments else "")
        metrics.start_metrics(site)
        call = prologue_call(arguments)
        torque, machine = site.table(TorqueConfig), machine_of(site)
        require_fitting(site, machine, torque.prologue_deadline, "torque.prologue_deadline")
        catch_signals(torque.prologue_deadline + _BACKSTOP_SECONDS)
    except (Exception, Interrupted) as error:  # noqa: BLE001 - by Python's own exit code, 1, Torque would delete the job
        code = _not_begun(site, arguments, answer, _as_error(error))
    else:
        code = _Start(site, torque, machine, call, answer).run()
    if site:
        metrics.publish(site)
    return code


class _Unheard(TimedOut):
    """Torque does not wait for this process any more, and has started the job, whose `aprun` finds no root."""


def _as_error(error: BaseException) -> UdiError:
    if isinstance(error, UdiError):
        return error
    if isinstance(error, Orphaned):
        return _Unheard(str(error))
    return TimedOut(str(error)) if isinstance(error, Interrupted) else _internal(error)


def _internal(error: BaseException) -> UdiError:
    """What a person can do nothing about; the traceback is for the log, not for the user."""
    _log.error("internal error", exc_info=error)
    return UpstreamFailed("internal error; details are in the site's log of the hooks")


def _not_begun(site: SiteConfig | None, arguments: Sequence[str], answer: bytes, error: UdiError) -> int:
    """The prologue cannot do its work: a job that shows no image is none of its business, any other is sent back, and
    held in the end, also where the configuration cannot be read and its defaults must do."""
    ignore_signals()
    _log.error("the prologue cannot be run: %s", sentence(error))
    if isinstance(error, _Unheard):
        return REQUEUE
    if not answer and len(arguments) == 8 and _shows_no_image(arguments[7]):
        return RUN
    report(PROGRAM, f"{sentence(error)} [site error (not your job's fault)]")
    is_held = _held_unread(site, arguments, error)
    metrics.failed("start", error)
    metrics.started("held" if is_held else "requeued")
    pause(0.0 if is_held else REQUEUE_PAUSE)
    return REQUEUE


def _held_unread(site: SiteConfig | None, arguments: Sequence[str], error: UdiError) -> bool:
    """Count the failure and hold the job after the last, where there is a place to count and a job."""
    site = site or SiteConfig(store=StoreConfig(path="/"))  # its defaults say where starts are counted
    try:
        torque = site.table(TorqueConfig)
    except UdiError:
        torque = TorqueConfig()
    if not arguments or not os.path.isdir(os.path.dirname(site.jobs.state)):
        return False
    try:
        job = job_id(arguments[0])
    except UdiError:
        return False
    failed = ConfigError(error.message, error.hint) if error.is_users else error
    return hold_after_tries(site, Torque(torque), job, torque.max_starts, failed).held


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
        except (Exception, Interrupted) as error:  # noqa: BLE001 - the last line of defence
            ignore_signals()
            return self._failed(_as_error(error))
        ignore_signals()
        return RUN

    def _prepare(self) -> None:
        site, call = self._site, self._call
        try:
            self._job = job = read_job(self._torque, call.job, self._deadline, self._answer)
        except UdiError as error:
            script = call.script or script_of(self._torque, call.job)
            if not _shows_no_image(script):
                raise
            _log.error("taken for a job without an image, since its script names none: %s", error.message)
            if not os.path.exists(script):
                report(PROGRAM, f"{sentence(error)}; if this session has an image, leave it and submit it again")
            return
        if not is_requested(job.variables):
            _refuse_lost_variable(self._pin_if_readable())
            return
        text = script_text(call.script)
        pin = find_pin(site.registry, text)
        request = requested(site, job.id, _account(call.user), job.variables, pin, carried_text(text))
        try:
            prepared = prepare(site, self._machine, request, job.hosts, self._deadline)
        except NotFound:
            if pin is None:
                _log.warning("its image was not checked at submission: the gateway did not answer, or was not asked")
            raise
        metrics.started("ready")
        self._forget()
        if prepared.notice:
            report(PROGRAM, prepared.notice)

    def _pin_if_readable(self) -> Pin | None:
        """The pin of a job that requests no image: a script that cannot be read must not send such a job back."""
        try:
            return find_pin(self._site.registry, script_text(self._call.script))
        except UpstreamFailed as error:
            _log.error("%s", error.message)
            return None

    def _failed(self, error: UdiError) -> int:
        """Report to the user, hold the job where its starts failed too often, and return what Torque shall do."""
        code = prologue_code(error)
        message = sentence(error)
        _log.error("start failed, exit code %d: %s", code, message)
        metrics.failed("start", error)
        if isinstance(error, _Unheard):
            return code
        wait = 0.0
        if code == REQUEUE:
            fate, wait = self._after_requeue(error)
            message = f"{message} [site error (not your job's fault); {fate}]"
        report(PROGRAM, message)
        if code == ABORT:
            metrics.started("refused")
            self._forget()
            if self._job is not None:
                from torque_hooks.userline import append_for  # of few starts

                append_for(self._job, _account(self._call.user), PROGRAM, message)
        pause(wait)
        return code

    def _after_requeue(self, error: UdiError) -> tuple[str, float]:
        """What becomes of the job, and the seconds to wait before that.

        A requeue that is followed at once by a start races with Torque's own polling, and some jobs are lost by that
        (torque-reference h). A job that is held does not start.
        """
        verdict = hold_after_tries(self._site, Torque(self._torque), self._call.job, self._torque.max_starts, error)
        metrics.started("held" if verdict.held else "requeued")
        if verdict.held:
            return f"job held after {counted(verdict.failures, 'failed start')}", 0.0
        seconds = self._torque.requeue_pause * 2.0 ** min(verdict.failures - 1, 10)
        return "job requeued", self._deadline.left(seconds)

    def _forget(self) -> None:
        try:
            forget_hold(self._site, self._call.job)
        except UdiError as error:
            _log.warning("the job's failed starts could not be forgotten: %s", error.message)


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


def _shows_no_image(script: str) -> bool:
    """Whether a job of which Torque reports nothing is one without an image: its script, if it has one, has no line of
    the submit filter and does not name the variable. A batch job's script exists, an interactive job has none; where
    Torque does not pass its path, nothing is known."""
    try:
        text = script_text(script)
    except UpstreamFailed:
        return False
    ours = (PIN_PREFIX.encode(), CARRIED_PREFIX.encode())
    if not script or any(prefix in text for prefix in ours):
        return False
    return not re.search(NAMED.encode(), text, re.MULTILINE)
