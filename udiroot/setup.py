"""Setting up a job's root on a node: record, compose, publish; undone at once where a step fails."""

import os
import time

from udiroot import krsip, ledger, modules, processes
from udiroot.compose import compose, publish
from udiroot.errors import SetupFailed, TeardownIncomplete, UdiError
from udiroot.mountinfo import Label
from udiroot.plan import NodePlan
from udiroot.record import Record, RunFolder, boot_id
from udiroot.teardown import tear_down

_PATIENCE = 2.0
"""Seconds to wait for another set-up or teardown to end: that of the job before this one often does just then."""


def set_up(plan: NodePlan, plan_path: str, nid: int, deadline: float) -> str:
    """Make the node ready for the plan's job; words about it. `deadline` is a time of time.monotonic().

    What the same job left earlier is removed first, and what a job of another boot left. Raises SetupFailed where
    another job's root is here, another set-up runs, or the plan was withdrawn meanwhile, and whatever error a step
    ended in, after undoing all.
    """
    with RunFolder(plan.run) as run:
        if not run.lock(min(_PATIENCE, deadline - time.monotonic())):
            other = run.read()
            raise SetupFailed(f"another set-up runs on this node, for {other.job if other else 'an unknown job'}")
        try:
            _require_wanted(plan_path)
            _clear_earlier(plan, run, nid, deadline)
            made_root = not os.path.lexists(plan.root)
            record = _record(plan, made_root)
            run.write(record)
            modules.load(record.modules)
            krsip.switch(plan.krsip, on=True)
            label = Label(plan.job, plan.user.uid, made_root).text()
            publish(compose(plan, nid, run.stage, label), plan.root, run.stage)
            if plan.ssh:
                from udiroot import ssh  # not on the way of a site without it

                record.sshd = ssh.start(plan, plan.ssh, nid, deadline)
                run.rewrite(record)
        except (UdiError, OSError) as error:
            _undo(plan, run, nid, deadline, error)
            raise
    return f"root of {plan.job} ready"


def _require_wanted(plan_path: str) -> None:
    """A late set-up must not follow its own teardown: that takes the plan away first, and then waits for our lock."""
    try:
        os.stat(plan_path, follow_symlinks=False)
    except FileNotFoundError as error:
        raise SetupFailed("the plan was withdrawn: the job has ended") from error


def _clear_earlier(plan: NodePlan, run: RunFolder, nid: int, deadline: float) -> None:
    found = ledger.survey(plan.root, run, nid, foreign=False)
    if found.clean:
        return
    others = found.jobs - {plan.job}
    if (others or not found.jobs) and not ledger.survey(plan.root, run, nid).is_dead:
        raise SetupFailed(f"the node is not clean: {found.sentence()}", "udi-admin recover cleans it")
    for job in found.jobs or {plan.job}:
        tear_down(job, plan.root, run, nid, deadline)
    if not run.lock(0):
        raise SetupFailed("another set-up began on this node")


def _undo(plan: NodePlan, run: RunFolder, nid: int, deadline: float, error: "UdiError | OSError") -> None:
    """Take everything away again; where that fails too, the node is dirty, and both are said."""
    try:
        tear_down(plan.job, plan.root, run, nid, max(deadline, time.monotonic() + 5))
    except (UdiError, OSError) as second:
        raise TeardownIncomplete(f"{error}; and undoing it failed: {second}") from error


def _record(plan: NodePlan, made_root: bool) -> Record:
    pid = os.getpid()
    return Record(
        job=plan.job,
        uid=plan.user.uid,
        root=plan.root,
        image=plan.image_path,
        pid=pid,
        start=processes.start_time(pid),
        since=int(time.time()),
        boot=boot_id(),
        made=made_root,
        modules=modules.absent(plan.modules),
        krsip=plan.krsip,
    )
