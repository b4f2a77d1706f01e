"""A job's root on this host itself, where a workload manager runs its hooks on each node of a job.

The same plan as for a fan-out, and the same software of the node: it runs as a child of the hook, with a deadline. Each
job has a root of its own, called by its id, so that jobs may share the node:

    <node.root>/JOB        the root
    <node.run>/JOB/        its record and staging (`udiroot.record`)
    <node.run>/JOB.plan    its plan; a set-up that finds it removed was withdrawn
    <node.run>/JOB.down    the command that takes it down, as the version that set it up made it, and the file by which
                           the job's nodes agree upon their image (`jobs.agreed`)
    <node.run>/JOB.lock    held by the one hook of the job that works

Nothing but these names and the kernel's own tables is needed to take a job down: where JOB.down is lost, the software
of now does it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jobs import metrics
from jobs.here import jobs_of_loops
from jobs.nodeerrors import error_of, with_warning
from udi import durable
from udi.command import Deadline, Finished, run
from udi.config import SiteConfig
from udi.filelock import locked, try_lock
from udi.jobid import job_id
from udi.nodecommand import enter_here, setup_here, teardown_here, with_nonce
from udi.nodes import NodeSlots
from udi.oserrors import reason
from udi.records import read_record
from udi.request import JobRequest
from udi.values import Frozen, as_dict, replace
from udiroot import mountinfo, says
from udiroot.commands import read_identity
from udiroot.digest import sha256
from udiroot.errors import SetupFailed, TeardownIncomplete, TimedOut, UdiError, UpstreamFailed
from udiroot.ledger import survey
from udiroot.plan import NodePlan
from udiroot.record import RunDirectory
from udiroot.report import NodeReport

if TYPE_CHECKING:
    from jobs.agreed import Agreement

_log = logging.getLogger("udi.jobs")
_ENDS_ITSELF = 15
"""Seconds beyond its own deadline in which the node's software has undone what failed, and ended."""
_LEAST_TO_UNDO = 20
"""Seconds that undoing has, however little is left."""


class Root(Frozen):
    """A root that is ready: where it is, the source of its mount, and the image in it. `notice` is for the user."""

    path: str
    label: str
    image_id: str
    notice: str = ""


class _Down(Frozen):
    """What `JOB.down` holds, as JSON."""

    command: tuple[str, ...]
    agreed: str = ""
    here: str = ""


class LocalJob:
    """One job on this host. Raises UsageError for a text that is not a job id."""

    def __init__(self, site: SiteConfig, job: str, locks: str = "") -> None:
        """`locks` is where its lock is, if not in the run directory: on a host that only controls the job's nodes."""
        self.job = job_id(job)
        self._locks = locks or site.node.run
        self._root = site.node.root
        node = replace(site.node, root=f"{site.node.root}/{job}", run=f"{site.node.run}/{job}", shared=True)
        self._site = replace(site, node=node)
        self._plan = f"{site.node.run}/{job}.plan"
        self._down = f"{site.node.run}/{job}.down"
        self._lock = f"{self._locks}/{job}.lock"

    def locked(self, deadline: Deadline) -> contextlib.AbstractContextManager[None]:
        """Alone with the job: an Epilog that comes while its Prolog still works waits for that. Raises TimedOut."""
        refusal = TimedOut(f"job {self.job} is still locked on this node by another hook")
        return locked(self._lock, self._open_lock, deadline, refusal)

    def is_busy(self) -> bool:
        """Whether a hook of the job works at this moment."""
        try:
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            return not try_lock(descriptor)
        finally:
            os.close(descriptor)

    def prepare(
        self,
        request: JobRequest,
        nodes: Sequence[NodeSlots],
        here: str,
        deadline: Deadline,
        agreement: Agreement | None = None,
    ) -> Root:
        """Set up the job's root on the node `here`; `nodes` are all of the job's, in its order, and `agreement` is what
        they have in common. Whatever fails is undone before the error is passed on. For the holder of the lock.

        Raises the UdiError of what failed; TeardownIncomplete where undoing it failed too.
        """
        from jobs.image import choose_image  # the store and templates are slow to import, and a teardown needs neither
        from udi.planning import NamedNodes, make_plan

        began = time.monotonic()
        marks_use = nodes[0].node.name == here
        foreseen = agreement.foreseen(self._site, request) if agreement else ""
        down = _Down(teardown_here(self._site, self.job), foreseen, here)
        try:
            self._keep_down(down)  # first, so that whoever takes the job down knows of the file
            choice = choose_image(self._site, request, marks_use=marks_use, agreement=agreement)
            if choice.agreed != down.agreed:
                down = replace(down, agreed=choice.agreed)
                self._keep_down(down)
            plan = make_plan(self._site, request, choice.facts, NamedNodes(), nodes, binds=choice.binds)
            report = self._set_up(plan)
            label = self._label()
            if label is None:
                raise SetupFailed(f"the set-up reported success, but nothing is mounted on {self._site.node.root}")
        except TeardownIncomplete:
            raise
        except BaseException as error:  # a signal included: no half of a root may stay
            if self._kept_down() != down:
                self._forget_agreed(down)
            try:
                self.take_down(Deadline(max(_LEAST_TO_UNDO, deadline.left())))
            except UdiError as second:
                why = f"{_words(error)}; and undoing it failed: {second.message}"
                raise TeardownIncomplete(why, jobs=(self.job,)) from error
            raise
        metrics.observe(metrics.JOB_SETUP, [time.monotonic() - began])
        return Root(self._site.node.root, label, choice.facts.id, with_warning(choice.notice, (report,)))

    def enter(self, ids: str, words: str, seconds: int) -> tuple[NodeReport, bytes]:
        """Run a command in the root, as `udiroot.enter` takes it; its report, and what it printed. Raises SetupFailed
        where the software made no report."""
        nonce = os.urandom(16).hex()
        command = enter_here(self._site, self.job, ids, words, seconds, nonce)
        done = run(command, seconds=seconds + _ENDS_ITSELF)
        pieces = (says.said(line, nonce) for line in done.stdout.decode("utf-8", "replace").splitlines())
        return self._report(done, nonce), b"".join(filter(None, pieces))

    def take_down(self, deadline: Deadline) -> None:
        """Remove the job's root and all that belongs to it; nothing of it need exist. For the holder of the lock.

        Raises TeardownIncomplete with what is left; other UdiErrors where the teardown could not be run.
        """
        try:
            durable.remove(self._plan, alone=True)
        except OSError as error:
            raise UpstreamFailed(f"{self._plan} cannot be removed: {reason(error)}") from error
        if self.is_left:
            self._tear_down(deadline)
        self._forget_agreed(self._kept_down())
        self._forget_down()

    def _tear_down(self, deadline: Deadline) -> None:
        began = time.monotonic()
        report = self._torn_down(deadline)
        _log.info("teardown: %d ms, %s", report.milliseconds, report.words)
        metrics.observe(metrics.JOB_TEARDOWN, [time.monotonic() - began])
        metrics.observe_nodes(metrics.NODE_TEARDOWN, [report])
        metrics.count(metrics.ENDS, "clean" if report.ok else "dirty")
        if not report.ok:
            raise TeardownIncomplete(report.words or "failed without a message", jobs=(self.job,), left=report.left)
        if self.is_left:
            raise TeardownIncomplete(f"teardown of job {self.job} reported success, but something of it is left")

    def _torn_down(self, deadline: Deadline) -> NodeReport:
        """By the command that was kept at set-up. Where that is lost or does not succeed, by that of now: an operator
        may have mended the configuration since."""
        now, down = teardown_here(self._site, self.job), self._kept_down()
        kept = down.command if down else now
        if kept != now:
            try:
                report = self._run_down(kept, deadline)
            except SetupFailed as error:
                _log.warning("teardown by the software of the job's start: %s", error.message)
            else:
                if report.ok or deadline.passed:
                    return report
        return self._run_down(now, deadline)

    def _run_down(self, command: Sequence[str], deadline: Deadline) -> NodeReport:
        nonce = os.urandom(16).hex()
        return self._run_here([with_nonce(word, nonce) for word in command], nonce, deadline)

    def _kept_down(self) -> _Down | None:
        """What was kept at set-up; None where that is lost."""
        try:
            return read_record(self._down, _Down, "")
        except (FileNotFoundError, UpstreamFailed):
            return None

    def _forget_agreed(self, down: _Down | None) -> None:
        if down and down.agreed:
            from jobs.agreed import forget  # few jobs have it

            forget(self._site, down.agreed, down.here)

    def _keep_down(self, down: _Down) -> None:
        _make_directory(self._root, 0o755)
        self._write(self._down, json.dumps(as_dict(down)).encode())

    def _write(self, path: str, data: bytes) -> None:
        try:
            durable.write(path, data, mode=0o400, alone=True)
        except OSError as error:
            raise UpstreamFailed(f"{path} cannot be written: {reason(error)}") from error

    def _forget_down(self) -> None:
        try:
            durable.remove(self._down, alone=True)
        except OSError as error:
            raise UpstreamFailed(f"{self._down} cannot be removed: {reason(error)}") from error

    def forget(self) -> None:
        """Nothing of the job is left here: remove its lock too. For its holder, as the last step."""
        try:
            durable.remove(self._lock)
        except OSError as error:
            _log.warning("%s cannot be removed: %s", self._lock, reason(error))

    @property
    def is_left(self) -> bool:
        """Whether this host has a root of the job, or remains of one: its mounts, loop devices or run directory."""
        mounted = any(mount.label and mount.label.job == self.job for mount in mountinfo.read())
        return mounted or os.path.lexists(self._site.node.run) or self.job in jobs_of_loops()

    def remains(self) -> str:
        """What this host has of the job, for a person; nothing, where it is a lock or note alone."""
        if not self.is_left:
            return ""
        node = self._site.node
        return survey(node.root, RunDirectory(node.run), read_identity(""), job=self.job, foreign=False).sentence()

    def has_root(self, label: str) -> bool:
        """Whether the job's root is mounted, with that source."""
        return self._label() == label

    def _label(self) -> str | None:
        root = self._site.node.root
        return next((mount.source for mount in mountinfo.read_below(root) if mount.point == root), None)

    def _set_up(self, plan: NodePlan) -> NodeReport:
        raw = plan.text().encode("ascii")
        self._write(self._plan, raw)
        nonce = os.urandom(16).hex()
        command = setup_here(self._site, self._plan, sha256(raw), nonce)
        report = self._run_here(command, nonce, Deadline(self._site.node.deadline + _ENDS_ITSELF))
        if not report.ok:
            raise error_of(report)
        _log.info("setup: %d ms", report.milliseconds)
        metrics.observe_nodes(metrics.NODE_SETUP, [report])
        return report

    def _run_here(self, command: Sequence[str], nonce: str, deadline: Deadline) -> NodeReport:
        """Raises SetupFailed where the software made no report."""
        return self._report(run(command, seconds=deadline.left()), nonce)

    def _report(self, done: Finished, nonce: str) -> NodeReport:
        for line in done.stdout.decode("utf-8", "replace").splitlines():
            report = NodeReport.parse(line, nonce)
            if report is not None:
                return report
        last = (done.stderr.decode("utf-8", "replace").strip().splitlines() or ["without a message"])[-1]
        raise SetupFailed(
            f"the node software ended with exit code {done.exit_code}: {last[:300]}", "check node.python and node.zip"
        )

    def _open_lock(self) -> int:
        _make_directory(self._locks, 0o700)
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            return os.open(self._lock, flags, 0o600)
        except OSError as error:
            raise UpstreamFailed(f"{self._lock} cannot be opened: {reason(error)}") from error


def _make_directory(path: str, mode: int) -> None:
    """A directory of root's that nobody else may write. Raises UpstreamFailed, SetupFailed."""
    try:
        durable.make_public_directory(os.path.dirname(path))
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, mode)
        status = os.stat(path, follow_symlinks=False)
    except OSError as error:
        raise UpstreamFailed(f"{path} cannot be made: {reason(error)}") from error
    if status.st_uid != 0 or status.st_mode & 0o022 or not os.path.isdir(path) or os.path.islink(path):
        raise SetupFailed(f"{path} must be a directory of root's that nobody else may write", f"chown root {path}")


def _words(error: BaseException) -> str:
    return error.message if isinstance(error, UdiError) else str(error) or type(error).__name__
