"""`udi-slurm-epilog`: what slurmd runs as root on each node of a job, when nothing of the job may run there any more.

Needs nothing but what is on the node: the note, the run directory, the kernel's tables. A job of which none exists had
no image, or was taken down already; running twice is harmless. A node that is not clean is drained with the reason, and
only where that fails the exit code is not 0, by which slurmd itself drains it.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence

from jobs import metrics
from jobs.notes import Notes
from jobs.process import Interrupted, catch_signals, clean_process, ignore_signals
from slurm_hooks.call import HookCall, arguments, hook_call
from slurm_hooks.commands import Slurm
from slurm_hooks.draining import drain
from slurm_hooks.native import local_job
from slurm_hooks.settings import UNDO_SECONDS, SlurmConfig
from udi.command import Deadline
from udi.config import SiteConfig, load
from udi.log import start_log
from udi.nodes import in_brief
from udi.platform import Machine
from udi.sentences import report, sentence
from udiroot.errors import TeardownIncomplete, TimedOut, UdiError

PROGRAM = "udi-slurm-epilog"
_log = logging.getLogger("udi.slurm")
_INTERNAL_ERROR = 70


def main(machine_of: Callable[[SiteConfig], Machine], argv: Sequence[str] | None = None) -> int:
    """Run Epilog. 0 when the node is clean, or drained; else the error's exit code.

    `machine_of` makes the machine that a configuration describes, and raises ConfigError where that is wrong.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    environment = dict(os.environ)
    clean_process()
    catch_signals()
    start_log(None, PROGRAM)
    site, settings = None, SlurmConfig()
    try:
        call = hook_call(environment)
        site = load(arguments(words).config)
        start_log(site, PROGRAM, call.job)
        metrics.start_metrics(site)
        settings = site.table(SlurmConfig)
        catch_signals(settings.epilog_deadline + UNDO_SECONDS)
        code = _End(site, settings, machine_of, call).run()
    except (UdiError, Interrupted) as error:
        ignore_signals()
        code = _failed(error if isinstance(error, UdiError) else TimedOut(str(error)))
    except Exception:  # noqa: BLE001 - the last line of defence: a traceback is for the log
        ignore_signals()
        _log.exception("internal error")
        code = _INTERNAL_ERROR
    if site:
        metrics.publish(site, has_records=settings.over_alps)
    return code


def _failed(error: UdiError) -> int:
    _log.error("takedown failed, exit code %d: %s", error.exit_code, sentence(error))
    metrics.failed("end", error)
    report(PROGRAM, sentence(error))
    return error.exit_code


class _End:
    """The end of one job on one node; over ALPS, on all its nodes."""

    def __init__(
        self, site: SiteConfig, settings: SlurmConfig, machine_of: Callable[[SiteConfig], Machine], call: HookCall
    ) -> None:
        self._site = site
        self._settings = settings
        self._machine_of = machine_of
        self._call = call
        self._deadline = Deadline(settings.epilog_deadline)
        self._local = local_job(site, call.job)

    def run(self) -> int:
        """Take the job down, and only then forget it. Raises the UdiError of a node that is not known to be clean and
        could not be drained."""
        try:
            with self._local.locked(self._deadline):
                if self._settings.over_alps:
                    self._take_down_over_alps()
                else:
                    self._local.take_down(self._deadline)
                ignore_signals()
                self._forget()
        except (UdiError, Interrupted) as error:
            ignore_signals()
            if self._settings.over_alps:
                raise
            self._drain(error if isinstance(error, UdiError) else TimedOut(str(error)))
            Notes(self._settings.notes).remove(self._call.job)
        return 0

    def _take_down_over_alps(self) -> None:
        """The machine takes nodes that stay dirty out of service. Raises the UdiError where it could not."""
        from jobs.takedown import take_down  # an Epilog on each node starts faster without

        done = take_down(self._site, self._machine_of(self._site), self._call.job, self._deadline)
        if done.error:
            raise done.error
        if done.spared:
            raise TeardownIncomplete(f"cleanup failed on {in_brief(done.dirty)}, left in service: {done.spared}")

    def _forget(self) -> None:
        Notes(self._settings.notes).remove(self._call.job)
        self._local.forget()

    def _drain(self, error: UdiError) -> None:
        """Raises the UdiError where the node cannot be drained."""
        _log.error("takedown failed: %s", sentence(error))
        slurm, call = Slurm(self._settings, self._call.conf), self._call
        refused = drain(slurm, call.node, f"job {call.job}: {error.message}", self._deadline)
        if refused:
            raise error from refused
        metrics.failed("end", error)
