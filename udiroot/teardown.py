"""Removing a job's root from a node, which is then in the state that it had before.

It starts from the kernel's tables and not from what set-up meant to do, so it repairs what a kill at any instant left;
it may run any number of times; it never unmounts lazily; and it ends by verifying the node. Another job's root is not
touched.
"""

import errno
import os
import time

from udiroot import krsip, ledger, loop, modules, processes
from udiroot.errors import TeardownIncomplete, counted
from udiroot.kernel import umount
from udiroot.ledger import Survey
from udiroot.mountinfo import Mount
from udiroot.record import Record, RunDirectory

_ROUNDS = 5
"""How often holders are terminated and the mounts tried again: each round may uncover one stacked below."""

_PATIENCE = 2.0
"""Seconds to wait for another job's set-up or teardown to finish."""


def tear_down(job: str, root: str, run: RunDirectory, node: str, deadline: float) -> str:
    """Remove everything of `job` from the node; words about what had to be done. The caller holds the lock of `run`.

    `deadline` is a time of time.monotonic(). Raises TeardownIncomplete with what is left, and why.
    """
    found = ledger.survey(root, run, node, job=job, foreign=False)
    if any(owner is not None and owner.job != job for owner in (found.record, found.label)):
        return f"no root of {job} on this node, which has that of {', '.join(sorted(found.jobs))}"
    uid = found.record.uid if found.record else found.label.uid if found.label else -1
    made_root = any(owner is not None and owner.made for owner in (found.record, found.label))
    terminated: list[str] = []
    _kill_sshd(found.record, deadline)
    stubborn = _unmount_all(found, job, root, run, uid, deadline, terminated)
    left = _free_loops(job, root, run, node, uid, deadline, terminated)
    if left.mounts or left.loops or left.foreign:
        why = f"; held by {', '.join(map(str, stubborn[:3]))}" if stubborn else ""
        raise left.incomplete(why, tuple(stubborn))
    if found.record and found.record.is_of_this_boot:
        krsip.switch(found.record.krsip, on=False)
        _unload(found.record, deadline)
    _remove_directories(job, root, run, made_root)
    if not terminated:
        return "clean"
    return f"terminated {counted(len(terminated), 'process', 'processes')}: {', '.join(terminated[:3])}"


def _kill_sshd(record: "Record | None", deadline: float) -> None:
    """The private sshd is killed by its pid in the record, so that it does not count as something that the job left.
    What it started counts, and so does an sshd that no record names: those hold the root, and are found by that."""
    if record and record.sshd and record.is_of_this_boot:
        processes.kill(*record.sshd, deadline)


def lock_for_teardown(job: str, run: RunDirectory, deadline: float) -> bool:
    """Take the lock of `run`, killing this job's own set-up if that still runs; False where another job has it."""
    if run.lock(0):
        return True
    record = run.read()
    if record and record.job != job:
        return run.lock(min(_PATIENCE, deadline - time.monotonic()))
    if record and record.is_of_this_boot:
        processes.kill(record.pid, record.start, deadline)
    return run.lock(deadline - time.monotonic())


def _unmount_all(
    found: Survey, job: str, root: str, run: RunDirectory, uid: int, deadline: float, terminated: "list[str]"
) -> "list[processes.Process]":
    """Unmount from the last to the first, terminating what holds a mount; the processes that could not be."""
    held = ledger.held_by(found, root, run.stage, job)
    mounts = found.mounts
    stubborn: list[processes.Process] = []
    for attempt in range(_ROUNDS):
        holders = processes.holders(held, deep=attempt > 0)
        stubborn = processes.terminate(holders, uid, deadline)
        terminated += [str(process) for process in holders if process not in stubborn]
        _unmount(mounts)
        mounts = ledger.our_mounts(root, run, job)
        if not mounts or time.monotonic() >= deadline:
            break
    return stubborn


def _unmount(mounts: "list[Mount]") -> None:
    """One pass over the mounts, the last first. A busy one stays in the table, where the next round finds it."""
    for mount in reversed(mounts):
        try:
            umount(mount.point)
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.EINVAL, errno.ENOENT):
                raise


def _free_loops(
    job: str, root: str, run: RunDirectory, node: str, uid: int, deadline: float, terminated: "list[str]"
) -> Survey:
    """What is left once the kernel has freed our devices with their last user.

    A process whose mount namespace still holds one is terminated, and a device that was bound and never mounted is
    freed here.
    """
    patience = min(deadline, time.monotonic() + 2.0)
    while True:
        left = ledger.survey(root, run, node, job=job)
        if not (left.loops or left.foreign) or time.monotonic() >= patience:
            return left
        still = processes.terminate(left.foreign, uid, deadline)
        terminated += [str(process) for process in left.foreign if process not in still]
        for path in left.loops:
            loop.detach(path)
        time.sleep(0.002)


def _unload(record: Record, deadline: float) -> None:
    """Modules can be unloaded once the last device or mount that used them is gone, which may be a moment later."""
    patience = min(deadline, time.monotonic() + 1.0)
    modules.unload(record.modules)
    while (idle := modules.unused(record.modules)) and time.monotonic() < patience:
        time.sleep(0.01)
        modules.unload(record.modules)
    if idle:
        names = f"kernel module {idle[0]}" if len(idle) == 1 else f"kernel modules {', '.join(idle)}"
        state = "is unused but could not be unloaded" if len(idle) == 1 else "are unused but could not be unloaded"
        raise TeardownIncomplete(
            f"{names} (loaded for {record.job}) {state}", jobs=(record.job,), left=(f"modules={len(idle)}",)
        )


def _remove_directories(job: str, root: str, run: RunDirectory, made_root: bool) -> None:
    """The directories that set-up created, and last the record."""
    for path in (*(f"{run.stage}/{name}" for name in ("image", "root")), run.stage, *((root,) if made_root else ())):
        try:
            os.rmdir(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            message = f"{path} could not be removed: {error.strerror}"
            raise TeardownIncomplete(message, jobs=(job,), left=("files=1",)) from error
    run.remove()
