"""Taking a job's root off a node: the node is then as it was before.

It starts from the kernel's tables and not from what set-up meant to do, so it mends what a kill at any instant left; it
may run any number of times; it never unmounts lazily; and it ends by looking at the node again. Another job's root is
not touched.
"""

import errno
import os
import time

from udiroot import krsip, ledger, loop, modules, processes
from udiroot.errors import TeardownIncomplete
from udiroot.kernel import umount
from udiroot.ledger import Survey
from udiroot.mountinfo import Mount
from udiroot.record import Record, RunFolder

_ROUNDS = 5
"""How often holders are ended and the mounts tried again: each round may uncover one stacked below."""

_PATIENCE = 2.0
"""Seconds to wait for another job's set-up or teardown to end."""


def tear_down(job: str, root: str, run: RunFolder, nid: int, deadline: float) -> str:
    """Remove everything of `job` from the node; words about what had to be done. The caller holds the folder's lock.

    `deadline` is a time of time.monotonic(). Raises TeardownIncomplete with what is left and why.
    """
    found = ledger.survey(root, run, nid, job=job, foreign=False)
    if any(owner is not None and owner.job != job for owner in (found.record, found.label)):
        return f"nothing of {job} here; the node holds {', '.join(sorted(found.jobs))}"
    uid = found.record.uid if found.record else found.label.uid if found.label else -1
    made_root = any(owner is not None and owner.made for owner in (found.record, found.label))
    ended: list[str] = []
    _end_sshd(found.record, deadline)
    stubborn = _unmount_all(found, job, root, run, uid, deadline, ended)
    left = _free_loops(job, root, run, nid, uid, deadline, ended)
    if left.mounts or left.loops or left.foreign:
        why = f"; held by {', '.join(map(str, stubborn[:3]))}" if stubborn else ""
        raise TeardownIncomplete(left.sentence() + why)
    if found.record and found.record.is_of_this_boot:
        krsip.switch(found.record.krsip, on=False)
        _unload(found.record, deadline)
    _remove_folders(root, run, made_root)
    return f"ended {len(ended)} processes: {', '.join(ended[:3])}" if ended else "clean"


def _end_sshd(record: "Record | None", deadline: float) -> None:
    """The private sshd by name, so that it does not count as something that the job left. What it started does, and one
    that no record names: those hold the root, and are found by that."""
    if record and record.sshd and record.is_of_this_boot:
        processes.kill(*record.sshd, deadline)


def lock_for_teardown(job: str, run: RunFolder, deadline: float) -> bool:
    """Take the folder's lock, ending this job's own set-up if that still runs; False where another holds it."""
    if run.lock(0):
        return True
    record = run.read()
    if record and record.job != job:
        return run.lock(min(_PATIENCE, deadline - time.monotonic()))
    if record and record.is_of_this_boot:
        processes.kill(record.pid, record.start, deadline)
    return run.lock(deadline - time.monotonic())


def _unmount_all(
    found: Survey, job: str, root: str, run: RunFolder, uid: int, deadline: float, ended: "list[str]"
) -> "list[processes.Process]":
    """Unmount from the last to the first, ending holders where a mount is busy; the holders that could not be ended."""
    held = ledger.held_by(found, root, run.stage, job)
    mounts = found.mounts
    stubborn: list[processes.Process] = []
    for attempt in range(_ROUNDS):
        holders = processes.holders(held, deep=attempt > 0)
        stubborn = processes.end(holders, uid, deadline)
        ended += [str(process) for process in holders if process not in stubborn]
        _unmount(mounts)
        mounts = ledger.our_mounts(root, run, job)
        if not mounts or time.monotonic() >= deadline:
            break
    return stubborn


def _unmount(mounts: "list[Mount]") -> None:
    """One pass over the mounts, the latest first. A busy one stays in the table, where the next look finds it."""
    for mount in reversed(mounts):
        try:
            umount(mount.point)
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.EINVAL, errno.ENOENT):
                raise


def _free_loops(job: str, root: str, run: RunFolder, nid: int, uid: int, deadline: float, ended: "list[str]") -> Survey:
    """What is left once the kernel has freed our devices with their last user.

    A mount namespace that still holds one is ended with its process, and a device that was bound and never mounted is
    freed here.
    """
    patience = min(deadline, time.monotonic() + 2.0)
    while True:
        left = ledger.survey(root, run, nid, job=job)
        if not (left.loops or left.foreign) or time.monotonic() >= patience:
            return left
        still = processes.end(left.foreign, uid, deadline)
        ended += [str(process) for process in left.foreign if process not in still]
        for path in left.loops:
            loop.detach(path)
        time.sleep(0.002)


def _unload(record: Record, deadline: float) -> None:
    """Modules leave once the last device or mount that used them is gone, which may be a moment later."""
    patience = min(deadline, time.monotonic() + 1.0)
    modules.unload(record.modules)
    while (idle := modules.unused(record.modules)) and time.monotonic() < patience:
        time.sleep(0.01)
        modules.unload(record.modules)
    if idle:
        raise TeardownIncomplete(
            f"kernel module {', '.join(idle)} of {record.job} is used by nobody and cannot be removed"
        )


def _remove_folders(root: str, run: RunFolder, made_root: bool) -> None:
    """The folders that we made, and last of all the record."""
    for path in (*(f"{run.stage}/{name}" for name in ("image", "root")), run.stage, *((root,) if made_root else ())):
        try:
            os.rmdir(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise TeardownIncomplete(f"{path} cannot be removed: {error.strerror}") from error
    run.remove()
