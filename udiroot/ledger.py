"""What shifter-xc has on a node, according to the kernel and the record: the one survey that teardown, its own
verification and the health check share.

A mount is managed by shifter-xc where it carries our label, or is on or under the root or the stage; a loop device is
where it has our name. Mounts and loop devices of other programs do not count.
"""

import time

from udiroot import loop, mountinfo, processes
from udiroot.errors import TeardownIncomplete, counted
from udiroot.mountinfo import Label, Mount
from udiroot.record import RECORD, Record, RunDirectory


class Survey:
    """Everything that shifter-xc has on a node at one moment.

    `mounts` in the order of mounting; `loops` are device paths; `foreign` are processes whose own mount namespace
    holds some of our mounts. `remains` are names in the run directory. `jobs` are the jobs named by labels and record.
    """

    __slots__ = ("foreign", "jobs", "label", "loops", "mounts", "record", "remains")

    def __init__(
        self, mounts: "list[Mount]", loops: "list[str]", record: "Record | None", remains: "list[str]", jobs: "set[str]"
    ) -> None:
        self.mounts, self.loops, self.record = mounts, loops, record
        self.remains, self.jobs = remains, jobs
        self.label = next((label for m in mounts if (label := Label.parse(m.source))), None)
        self.foreign: list[processes.Process] = []

    @property
    def clean(self) -> bool:
        """Whether nothing is left."""
        return not (self.mounts or self.loops or self.remains or self.foreign)

    @property
    def is_dead(self) -> bool:
        """Whether only files are left: of another boot, or of a killed writer that had done nothing else."""
        live = self.record is not None and self.record.is_of_this_boot
        return not (self.mounts or self.loops or self.foreign or live)

    def incomplete(self, why: str = "", holders: "tuple[processes.Process, ...]" = ()) -> TeardownIncomplete:
        """The error of a node that is not clean: fields for programs, a message for people. `holders` are processes
        that could not be terminated."""
        pids = {process.pid for process in (*self.foreign, *holders)}
        numbers = (("mounts", self.mounts), ("loops", self.loops), ("processes", pids), ("files", self.remains))
        left = tuple(f"{kind}={len(found)}" for kind, found in numbers if found)
        return TeardownIncomplete(self.sentence() + why, jobs=tuple(sorted(self.jobs)), left=left)

    def sentence(self) -> str:
        """What is left, of which job, and since when, in one line for a person."""
        parts = []
        if self.mounts:
            parts.append(f"{counted(len(self.mounts), 'mount')} (last on {self.mounts[-1].point})")
        if self.loops:
            parts.append(f"{counted(len(self.loops), 'loop device')} ({', '.join(self.loops)})")
        if self.foreign:
            found = ", ".join(map(str, self.foreign[:3]))
            parts.append(f"{counted(len(self.foreign), 'mount namespace')} of another process: {found}")
        if self.remains:
            parts.append(_remains_in_words(self.record, self.remains))
        job = ", ".join(sorted(self.jobs)) or "an unknown job"
        since = f" (set up {time.strftime('%F %T', time.localtime(self.record.since))})" if self.record else ""
        return f"left by {job}{since}: {'; '.join(parts)}"


def survey(root: str, run: RunDirectory, node: str, *, job: str = "", foreign: bool = True) -> Survey:
    """Look at the node. With `job`, another job's loop devices and labelled mounts elsewhere do not count.

    `foreign` also looks into other processes' mount namespaces.
    """
    mounts = our_mounts(root, run, job)
    record = run.read()
    loops = _loops(node, job, record)
    jobs = {label.job for m in mounts if (label := Label.parse(m.source))}
    jobs |= {owner for name in loops.values() if (owner := loop.job_of(name))}
    if record:
        jobs.add(record.job)
    found = Survey(mounts, sorted(loops), record, run.names(), jobs)
    if foreign:
        held = held_by(found, root, run.stage, job)
        found.foreign = [p for p in processes.holders(held, deep=False) if p.why == processes.IN_NAMESPACE]
    return found


def our_mounts(root: str, run: RunDirectory, job: str) -> "list[Mount]":
    """The node's mounts that shifter-xc manages, in the order of mounting."""
    return [mount for mount in mountinfo.read() if _is_ours(mount, root, run.stage, job)]


def held_by(found: Survey, root: str, stage: str, job: str) -> processes.Held:
    """What no process may hold, for `processes.holders`."""
    devices = {m.device for m in found.mounts if Label.parse(m.source) or m.source.startswith("/dev/loop")}
    return processes.Held((root, stage), devices, job, set(found.loops))


def _remains_in_words(record: "Record | None", remains: "list[str]") -> str:
    if record is None:
        return "unreadable record" if RECORD in remains else f"{', '.join(remains[:3])} without a record"
    return "record" if record.is_of_this_boot else "record of an earlier boot"


def _is_ours(mount: Mount, root: str, stage: str, job: str) -> bool:
    point = mount.point
    if any(point == directory or point.startswith(directory + "/") for directory in (root, stage)):
        return True
    label = Label.parse(mount.source)
    return label is not None and (not job or label.job == job)


def _loops(node: str, job: str, record: "Record | None") -> "dict[str, str]":
    """Our loop devices: path → name. One bound to the record's image that has no name yet is ours too: a kernel that
    binds and names in two steps was interrupted between them."""
    wanted = loop.label(node, job)
    found = {}
    for path, (name, backing) in loop.names().items():
        named = name == wanted if job else name.startswith(wanted)
        if named:
            found[path] = name
        elif not name and record and backing == record.image and record.is_of_this_boot:
            found[path] = loop.label(node, record.job)
    return found
