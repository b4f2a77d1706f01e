"""Setting up a job's root on a node: record, compose, publish; undone at once where a step fails."""

import os
import time

from udiroot import entered, krsip, ledger, loop, modules, processes
from udiroot.alarm import set_alarm
from udiroot.compose import compose, publish
from udiroot.errors import SetupFailed, TeardownIncomplete, UdiError
from udiroot.mountinfo import Label
from udiroot.neighbours import Neighbours
from udiroot.plan import NodePlan
from udiroot.record import Record, RunDirectory, boot_id
from udiroot.report import HIDES
from udiroot.rules import in_real_directory
from udiroot.teardown import tear_down
from udiroot.trials import gives_way, lock_instead

_PATIENCE = 2.0
"""Seconds to wait for another set-up or teardown to finish: that of the job before often does just then."""
_UNDO_SECONDS = 5
"""What undoing may take where the deadline leaves less."""


def set_up(plan: NodePlan, plan_path: str, node: str, deadline: float) -> "tuple[str, ...]":
    """Make the node ready for the plan's job; words about it, and a count. `deadline` is a time of time.monotonic().

    What the same job left earlier is removed first, and what a job of an earlier boot left. Raises SetupFailed where
    the node has another job's root, another set-up is running, or the plan was withdrawn meanwhile, and whatever any
    step raised, after undoing everything.
    """
    root = in_real_directory(plan.root)
    with RunDirectory(in_real_directory(plan.run)) as run:
        if not (run.lock(min(_PATIENCE, deadline - time.monotonic())) or lock_instead(plan.job, run, deadline)):
            other = run.read()
            raise SetupFailed(f"another set-up is running on this node, for {other.job if other else 'an unknown job'}")
        try:
            _require_wanted(plan_path)
            _clear_earlier(plan.job, root, run, node, deadline)
            if plan.site_modules:
                from udiroot import sitemodules  # only a job with site modules pays for it

                sitemodules.settle(plan)
            made_root = not os.path.lexists(root)
            record = _written_record(plan, root, run, deadline, made_root)
            modules.load(record.modules)
            krsip.switch(plan.krsip, on=True)
            label = Label(plan.job, plan.user.uid, made_root).text()

            def announce(backing: int) -> None:
                record.cache = loop.file_id(backing)
                run.rewrite(record)

            composed, warnings = compose(plan, node, run.stage, label, (root, run.path), announce)
            publish(composed, root, run.stage)
            if plan.ssh:
                from udiroot import ssh  # only a site with the private sshd pays for it

                record.sshd = ssh.start(plan.user, plan.ssh, root, plan.address_of(node), deadline)
                run.rewrite(record)
            record.reads = entered.reads(root, loop.label(node, plan.job))
            if record.reads:
                run.rewrite(record)
        except BaseException as error:  # whatever it is, the node must not keep half a root
            _undo(plan.job, root, run, node, deadline, error)
            raise
    return ("; ".join(warnings), f"{HIDES}{len(warnings)}") if warnings else (f"root of {plan.job} ready",)


def _require_wanted(plan_path: str) -> None:
    """A late set-up must not follow its own teardown: that removes the plan first, and then waits for our lock."""
    try:
        os.stat(plan_path, follow_symlinks=False)
    except FileNotFoundError as error:
        raise SetupFailed("the plan was withdrawn: the job has ended") from error


def _clear_earlier(job: str, root: str, run: RunDirectory, node: str, deadline: float) -> None:
    """Where the run directory is named after its job, other jobs have roots of their own on the node, which are none
    of its business. A trial gives way (`udiroot.trials`)."""
    only = job if os.path.basename(run.path) == job else ""
    found = ledger.survey(root, run, node, job=only, foreign=False)
    if found.clean:
        return
    others = {other for other in found.jobs - {job} if not gives_way(other, job)}
    if (others or not found.jobs) and not ledger.survey(root, run, node, job=only).is_dead:
        raise SetupFailed(f"the node is not clean: {found.sentence()}", "clean it with udi-admin recover")
    for earlier in found.jobs or {job}:
        tear_down(earlier, root, run, node, deadline)
    if not run.lock(0):
        raise SetupFailed("another set-up began on this node")


def _undo(job: str, root: str, run: RunDirectory, node: str, deadline: float, error: BaseException) -> None:
    """Remove everything again; where that fails too, the node is not clean, and both errors are reported.

    It has some seconds of its own, and an alarm: what failed may have been that the time was over.
    """
    seconds = max(_UNDO_SECONDS, int(deadline - time.monotonic()))
    set_alarm(seconds + 1)
    run.close_others()
    try:
        tear_down(job, root, run, node, time.monotonic() + seconds)
    except (UdiError, OSError) as second:
        left = second.left if isinstance(second, TeardownIncomplete) else ()
        why = str(error) or type(error).__name__
        raise TeardownIncomplete(f"{why}; and undoing it failed: {second}", jobs=(job,), left=left) from error


def _written_record(plan: NodePlan, root: str, run: RunDirectory, deadline: float, made_root: bool) -> Record:
    """The record, in place: from then on, no other job's teardown unloads a module that this one needs."""
    with Neighbours(plan.job, run, deadline) as neighbours:
        needed = set(modules.absent(plan.modules)) | (neighbours.modules() if plan.modules else set())
        record = _record(plan, root, made_root, tuple(path for path in plan.modules if path in needed))
        run.write(record)
    return record


def _record(plan: NodePlan, root: str, made_root: bool, needed: "tuple[str, ...]") -> Record:
    pid = os.getpid()
    return Record(
        job=plan.job,
        uid=plan.user.uid,
        root=root,
        image=os.path.realpath(plan.image_path),  # as the kernel's tables show it
        pid=pid,
        start=processes.start_time(pid),
        since=int(time.time()),
        boot=boot_id(),
        made=made_root,
        modules=needed,
        krsip=plan.krsip,
    )
