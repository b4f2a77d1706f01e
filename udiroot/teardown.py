"""Removing a job's root from a node, which is then in the state that it had before.

It starts from the kernel's tables and not from what set-up meant to do, so it repairs what a kill at any instant left;
it may run any number of times; it never unmounts lazily; and it ends by verifying the node. Another job's root is not
touched.
"""

import errno
import os
import time

from udiroot import holders, ipc, krsip, ledger, leftovers, loop, modules, processes
from udiroot.errors import TeardownIncomplete, TimedOut
from udiroot.kernel import umount
from udiroot.ledger import Survey
from udiroot.mountinfo import deepest_first
from udiroot.neighbours import Neighbours
from udiroot.processes import Process, Terminated
from udiroot.record import Record, RunDirectory

_PATIENCE = 2.0
"""Seconds to wait for another job's set-up or teardown to finish."""
_PATIENCE_WITH_OTHERS = 1.0
"""Seconds to try again where only processes of other users hold the root, which may be about to close it."""
_FIRST_PAUSE, _LAST_PAUSE = 0.002, 0.1
"""Seconds between two tries: most often the kernel only has to finish the exit of a process."""
_TIME_TO_EXAMINE, _TIME_TO_REPORT = 0.5, 0.25
"""Seconds before the deadline: the last try begins by the first, and looking for holders ends at the second."""


def tear_down(job: str, root: str, run: RunDirectory, node: str, deadline: float, *, alone: bool = False) -> str:
    """Remove everything of `job` from the node; words about what had to be done. The caller holds the lock of `run`.

    `deadline` is a time of time.monotonic(). `alone` says that no other job runs on this node: then everything that
    runs as the job's user is terminated, and otherwise only what holds the root. Raises TeardownIncomplete with what
    is left, and why.
    """
    found = ledger.survey(root, run, node, job=job, foreign=False)
    if any(owner is not None and owner.job != job for owner in (found.record, found.label)):
        return f"no root of {job} on this node, which has that of {', '.join(sorted(found.jobs))}"
    uid = found.record.uid if found.record else found.label.uid if found.label else -1
    made_root = any(owner is not None and owner.made for owner in (found.record, found.label))
    _kill_sshd(found.record, deadline)
    effort = _Effort(job, root, run, node, uid, deadline, alone=alone and not found.others)
    effort.remove(found)
    if effort.is_alone:
        ipc.remove(uid, run.stage)
    if found.record and found.record.is_of_this_boot:
        _give_back(found.record, run, deadline)
    _remove_directories(job, root, run, made_root)
    return str(effort.terminated)


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


class _Effort:
    """Unmounting everything and freeing its loop devices, again and again: a try shows what prevents it, which is
    terminated before the next one, until nothing is left or the deadline has come."""

    def __init__(
        self, job: str, root: str, run: RunDirectory, node: str, uid: int, deadline: float, *, alone: bool
    ) -> None:
        self._job, self._root, self._run, self._node = job, root, run, node
        self._uid, self._deadline, self.is_alone = uid, deadline, alone and uid > 0
        self._stubborn: list[Process] = []
        self._why = ""
        self.terminated = Terminated()

    def remove(self, found: Survey) -> None:
        """Remove the mounts and loop devices of `found`. Raises TeardownIncomplete where not all could be."""
        pause = _FIRST_PAUSE
        others_since = time.monotonic()
        held = ledger.held_by(found, self._root, self._run.stage, self._job)
        is_busy = False
        while True:
            if self.is_alone:
                leftovers.terminate(self._uid, self.terminated, self._deadline, seen_or_not=is_busy)
            _unmount(found)
            left = ledger.survey(self._root, self._run, self._node, job=self._job, foreign=False)
            for path in left.loops:
                loop.detach(path)
            deep = bool(left.mounts or (left.loops and pause > _FIRST_PAUSE))  # a device may be free a moment later
            killed = self._kill_holders(held, left, deep=deep)
            if not (left.mounts or left.loops or self._stubborn or killed or self._why):
                return
            now = time.monotonic()
            if killed or not self._stubborn:
                others_since = now
            if now + pause >= self._deadline - _TIME_TO_EXAMINE or now - others_since >= _PATIENCE_WITH_OTHERS:
                raise left.incomplete(self._reason(), tuple(self._stubborn))
            time.sleep(pause)
            pause = min(2 * pause, _LAST_PAUSE)
            found, is_busy = left, True

    def _kill_holders(self, held: holders.Held, left: Survey, *, deep: bool) -> int:
        """Kill what holds the root and is the user's, each as it is found; how many. The others are `_stubborn`."""
        killed = 0
        self._stubborn, self._why = [], ""
        try:
            for process in holders.holders(held, deep=deep, deadline=self._deadline - _TIME_TO_REPORT):
                if process.uid == self._uid and self._uid > 0:
                    processes.send_kill(process.pid, process.start)
                    self.terminated.add(process)
                    killed += 1
                else:
                    self._stubborn.append(process)
        except TimedOut as error:
            self._why = error.message
        left.foreign = [process for process in self._stubborn if process.why == holders.IN_NAMESPACE]
        return killed

    def _reason(self) -> str:
        """Why something is left, for a person."""
        reasons = []
        if self._stubborn:
            more = f" and {len(self._stubborn) - 3} more" if len(self._stubborn) > 3 else ""
            reasons.append(f"held by {', '.join(map(str, self._stubborn[:3]))}{more}")
        if self._why:
            reasons.append(self._why)
        if not reasons and self.is_alone:
            reasons.append(f"no process of uid {self._uid} is left, and none shows what holds it")
        elif not reasons:
            kept = f"; other jobs share the node, so processes of uid {self._uid} that show nothing were not terminated"
            reasons.append("no process shows what holds it" + (kept if self._uid > 0 else ""))
        return "; " + "; ".join(reasons)


def _kill_sshd(record: "Record | None", deadline: float) -> None:
    """The private sshd is killed by its pid in the record, so that it does not count as something that the job left.
    What it started counts, and so does an sshd that no record names: those hold the root, and are found by that."""
    if record and record.sshd and record.is_of_this_boot:
        processes.kill(*record.sshd, deadline)


def _unmount(found: Survey) -> None:
    """One pass over the mounts, each before the one that it is on. A busy one stays in the table, for the next pass."""
    for mount in deepest_first(found.mounts):
        try:
            if mount.kind == "ext4" and mount.source in found.loops:
                from udiroot import cache  # only a job with such a file system pays for it

                cache.discard(mount)
            umount(mount.point)
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.EINVAL, errno.ENOENT):
                raise


def _give_back(record: Record, run: RunDirectory, deadline: float) -> None:
    """What the node's jobs share, as far as no other one needs it; the record then names none of it any more."""
    with Neighbours(record.job, run, deadline) as neighbours:
        switches, others = neighbours.switches(), neighbours.modules()
        if record.krsip not in switches:
            krsip.switch(record.krsip, on=False)
        record.modules = tuple(path for path in record.modules if path not in others)
        _unload(record, deadline)
        if neighbours.is_shared:
            record.modules, record.krsip = (), ""
            run.rewrite(record)


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
