"""`udi-slurm-prolog`: what slurmd runs as root on each node of a job, before anything of the job runs there.

A job without an image needs nothing (the installed wrapper exits before Python starts). For any other job, the note
(`jobs.notes`) says in the end that the root is ready, or why not; the plugin refuses the job's tasks then, so the exit
code is 0, and the node stays in service. It is another one only where a node that must be drained could not be, or that
has no note, or no plugin to go by it: slurmd itself starts nothing on a node whose Prolog fails, and drains it.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence

from jobs import metrics
from jobs.deadlines import require_fitting
from jobs.notes import FAILED, READY, WANTED, Note, Notes
from jobs.process import Interrupted, catch_signals, clean_process, ignore_signals
from slurm_hooks.call import HookCall, arguments, hook_call
from slurm_hooks.commands import Slurm
from slurm_hooks.draining import drain
from slurm_hooks.native import hosts_of, local_job, on_node, prepare_here, require_native
from slurm_hooks.plugstack import PluginMissing, require_plugin
from slurm_hooks.request import requested
from slurm_hooks.settings import TELL_SECONDS, UNDO_SECONDS, SlurmConfig
from slurm_hooks.starts import send_back
from udi.accounts import Account, account_of_uid
from udi.command import Deadline
from udi.config import SiteConfig, load
from udi.log import plain, start_log
from udi.platform import Machine
from udi.request import JobRequest
from udi.sentences import report, sentence
from udiroot.errors import NotFound, TeardownIncomplete, TimedOut, UdiError, UpstreamFailed, UsageError
from udiroot.mountinfo import Label

PROGRAM = "udi-slurm-prolog"
_log = logging.getLogger("udi.slurm")
_DRAIN_ME = 1
"""An exit code by which slurmd drains its node."""
_MAX_GIVEN = 400


def main(machine_of: Callable[[SiteConfig], Machine], argv: Sequence[str] | None = None) -> int:
    """Run Prolog. 0, or where slurmd must drain the node 1.

    `machine_of` makes the machine that a configuration describes, and raises ConfigError where that is wrong.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    environment = dict(os.environ)
    clean_process()
    catch_signals()
    start_log(None, PROGRAM)
    notes, settings = "", SlurmConfig()
    call: HookCall | None = None
    site: SiteConfig | None = None
    try:
        given = arguments(words)
        notes = given.notes or settings.notes
        call = hook_call(environment)
        site = load(given.config)
        start_log(site, PROGRAM, call.job)
        metrics.start_metrics(site)
        settings = site.table(SlurmConfig)
        notes = settings.notes
        if not settings.over_alps:
            require_native(site)
            site = on_node(site, call)
        catch_signals(settings.prolog_deadline + UNDO_SECONDS)
        start = _Start(site, settings, machine_of, call)
    except UdiError as error:
        code = _not_begun(settings, notes, call, error)
    except Interrupted as error:
        code = _not_begun(settings, notes, call, TimedOut(str(error)))
    except Exception as error:  # noqa: BLE001 - the last line of defence
        code = _not_begun(settings, notes, call, UpstreamFailed(f"internal error: {type(error).__name__}"))
    else:
        code = start.run() if call.image.strip() else start.clear()
    if site:
        metrics.publish(site, has_records=settings.over_alps)
    return code


def _not_begun(settings: SlurmConfig, notes: str, call: HookCall | None, error: UdiError) -> int:
    """Prolog cannot do its work. Where it knows the job, that one is sent back, or ends with the reason; the node is
    not to blame."""
    ignore_signals()
    _log.error("Prolog cannot be run: %s", sentence(error))
    if call is None:
        report(PROGRAM, sentence(error))
        return _DRAIN_ME  # nobody but slurmd knows which job must not start
    if not call.image.strip():
        return 0
    return _Outcome(settings, Notes(notes), call, Deadline(TELL_SECONDS)).sent_back(error)


class _Outcome:
    """Tells the plugin, and where it must be slurmctld, that the job cannot start here."""

    def __init__(self, settings: SlurmConfig, notes: Notes, call: HookCall, deadline: Deadline) -> None:
        self._settings = settings
        self._notes = notes
        self._call = call
        self._deadline = deadline
        self._slurm = Slurm(settings, call.conf)
        self.note = Note(call.uid, WANTED, call.start, given=plain(call.image, _MAX_GIVEN))

    def write(self) -> None:
        """Put the note in place. Raises UpstreamFailed."""
        self._notes.write(self._call.job, self.note)

    def ready(self, root: str, label: str, image_id: str) -> None:
        """The job's tasks may enter this root. Raises UpstreamFailed."""
        self.note = self._notes.change(self._call.job, self.note, state=READY, root=root, label=label, id=image_id)
        metrics.started("ready")

    def failed(self, error: UdiError) -> int:
        """By whose error it is. A node that is not clean gets no other job; whatever happens, no task may enter."""
        if error.is_users:
            _log.error("start failed: %s", sentence(error))
            metrics.failed("start", error)
            metrics.started("refused")
            return self._fail(sentence(error))
        if isinstance(error, PluginMissing):
            self._drained(error.message)
            self.sent_back(error)
            return _DRAIN_ME  # nobody reads the note here
        is_dirty = isinstance(error, TeardownIncomplete) and not self._settings.over_alps
        drained = self._drained(f"job {self._call.job}: {error.message}") if is_dirty else True
        return self.sent_back(error) or (0 if drained else _DRAIN_ME)

    def sent_back(self, error: UdiError) -> int:
        """It is the site's error, or the node's: another start may succeed."""
        _log.error("start failed, exit code %d: %s", error.exit_code, sentence(error))
        metrics.failed("start", error)
        if code := self._fail(f"{sentence(error)} [site error (not your job's fault)]"):
            return code
        deadline = Deadline(max(TELL_SECONDS, self._deadline.left()))
        call = self._call
        fate = send_back(self._slurm, call.job, call.start, self._settings.max_starts, error, deadline)
        _log.error("%s", fate)
        return self._fail(f"{sentence(error)} [site error (not your job's fault); {fate}]")

    def _fail(self, why: str) -> int:
        try:
            self.note = self._notes.change(self._call.job, self.note, state=FAILED, why=why, root="", label="")
        except UdiError as lost:
            _log.error("%s", lost.message)
            return _DRAIN_ME
        return 0

    def _drained(self, why: str) -> bool:
        return drain(self._slurm, self._call.node, why, self._deadline) is None


class _Start:
    """One start of one job on one node; over ALPS, on all its nodes."""

    def __init__(
        self, site: SiteConfig, settings: SlurmConfig, machine_of: Callable[[SiteConfig], Machine], call: HookCall
    ) -> None:
        self._site = site
        self._settings = settings
        self._machine_of = machine_of
        self._call = call
        self._deadline = Deadline(settings.prolog_deadline)
        self._notes = Notes(settings.notes)
        self._local = local_job(site, call.job)
        self._outcome = _Outcome(settings, self._notes, call, self._deadline)

    def run(self) -> int:
        """Prepare the job, and tell the outcome."""
        try:
            with self._local.locked(self._deadline):
                return self._run_locked()
        except UdiError as error:  # another hook of the job does not end: no task may enter what it makes
            ignore_signals()
            return self._outcome.failed(error)
        except Interrupted as error:
            ignore_signals()
            return self._outcome.failed(TimedOut(str(error)))
        except Exception:  # noqa: BLE001 - the last line of defence: a traceback is for the log
            return self._outcome.failed(_internal())

    def clear(self) -> int:
        """A job without an image, of whose id something is left here: the number was another job's before."""
        try:
            with self._local.locked(self._deadline):
                if not self._settings.over_alps:
                    self._local.take_down(self._deadline)
                self._notes.remove(self._call.job)
                self._local.forget()
        except (UdiError, Interrupted) as error:
            ignore_signals()
            _log.error("what an earlier job of this number left cannot be removed: %s", error)
            return _DRAIN_ME
        except Exception:  # noqa: BLE001 - the last line of defence: a traceback is for the log
            _internal()
            return _DRAIN_ME
        return 0

    def _run_locked(self) -> int:
        try:
            if self._is_ready_already():
                return 0
            self._outcome.write()
            require_plugin(self._settings)
            self._prepare()
            ignore_signals()
        except UdiError as error:
            ignore_signals()
            return self._outcome.failed(error)
        except Interrupted as error:
            ignore_signals()
            return self._outcome.failed(TimedOut(str(error)))
        except Exception:  # noqa: BLE001 - as above
            return self._outcome.failed(_internal())
        return 0

    def _is_ready_already(self) -> bool:
        """Whether this start of the job has its root here: slurmd runs Prolog again where it lost its own memory of it,
        and tasks may run in that root."""
        note = self._notes.read(self._call.job)
        if note is None or (note.state, note.uid, note.start) != (READY, self._call.uid, self._call.start):
            return False
        if self._settings.over_alps:
            from jobs import state  # only over ALPS: a Prolog on each node starts faster without

            known = state.JobDirectory(self._site, self._call.job).load()
            return known is not None and known.phase == state.READY
        return self._local.has_root(note.label)

    def _prepare(self) -> None:
        call = self._call
        request = requested(
            self._site,
            call.job,
            _account(call.uid),
            call.image,
            call.volumes,
            call.image_id,
            call.modules,
            call.carried,
        )
        self._outcome.note = self._notes.change(call.job, self._outcome.note, image=str(request.reference))
        if self._settings.over_alps:
            self._prepare_over_alps(request)
            return
        slurm = Slurm(self._settings, call.conf)
        root = prepare_here(slurm, call, request, self._local, self._deadline)
        self._outcome.ready(root.path, root.label, root.image_id)

    def _prepare_over_alps(self, request: JobRequest) -> None:
        """All nodes at once, by the machine; the plugin enters nothing here, but lets aprun do so."""
        from jobs.prepare import prepare  # as above

        machine = self._machine_of(self._site)
        require_fitting(self._site, machine, self._settings.prolog_deadline, "slurm.prolog_deadline")
        call = self._call
        prepare(self._site, machine, request, hosts_of(call), self._deadline, call.reservation)
        label = Label(call.job, call.uid, made=True).text()
        self._outcome.ready(self._site.node.root, label, "")


def _internal() -> UpstreamFailed:
    """What a person can do nothing about, while it is handled; the traceback is for the log."""
    ignore_signals()
    _log.exception("internal error")
    return UpstreamFailed("internal error; details are in the site's log of the hooks")


def _account(uid: int) -> Account:
    """The job's owner. A job of an account that does not exist on this node is not the user's error."""
    try:
        return account_of_uid(uid)
    except (NotFound, UsageError) as error:
        raise UpstreamFailed(error.message) from error
