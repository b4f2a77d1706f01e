"""What is on a node of ours, told by the kernel and the record: the one survey that teardown, its own verification and
the health check share.

Ours is what carries our label, lies on or under the root or the stage, or is a loop device with our name. Another
program's mount or loop device is not our dirt.
"""

import time

from udiroot import loop, mountinfo, processes
from udiroot.mountinfo import Label, Mount
from udiroot.record import RECORD, Record, RunFolder


class Survey:
    """Everything of ours on a node at one moment.

    `mounts` in the order of mounting; `loops` are device paths; `foreign` are processes whose own mount namespace
    holds something of ours. `remains` are names in the run folder. `jobs` are the jobs that labels and record name.
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
        return not (self.mounts or self.loops or self.remains or self.foreign)

    @property
    def is_dead(self) -> bool:
        """Whether nothing but files is left: of another boot, or of a writer that is gone with all that it did."""
        live = self.record is not None and self.record.is_of_this_boot
        return not (self.mounts or self.loops or self.foreign or live)

    def sentence(self) -> str:
        """What is left, of which job, and since when, in one line for a person."""
        parts = []
        if self.mounts:
            parts.append(f"{len(self.mounts)} mounts, the last on {self.mounts[-1].point}")
        if self.loops:
            parts.append(f"loop device {', '.join(self.loops)}")
        if self.foreign:
            parts.append(f"a mount namespace of {', '.join(map(str, self.foreign[:3]))}")
        if self.remains:
            parts.append(_record_in_words(self.record, self.remains))
        job = ", ".join(sorted(self.jobs)) or "an unknown job"
        since = f" since {time.strftime('%F %T', time.localtime(self.record.since))}" if self.record else ""
        return f"{'; '.join(parts)} of {job} left{since}"


def survey(root: str, run: RunFolder, nid: int, *, job: str = "", foreign: bool = True) -> Survey:
    """Look at the node. With `job`, another job's loop devices and labelled mounts elsewhere do not count.

    `foreign` also looks into other processes' mount namespaces.
    """
    mounts = our_mounts(root, run, job)
    record = run.read()
    loops = _loops(nid, job, record)
    jobs = {label.job for m in mounts if (label := Label.parse(m.source))}
    jobs |= {name.split(":", 2)[2] for name in loops.values()}
    if record:
        jobs.add(record.job)
    found = Survey(mounts, sorted(loops), record, run.names(), jobs)
    if foreign:
        held = held_by(found, root, run.stage, job)
        found.foreign = [p for p in processes.holders(held, deep=False) if p.why == "mount namespace"]
    return found


def our_mounts(root: str, run: RunFolder, job: str) -> "list[Mount]":
    """Our mounts on the node, in the order of mounting."""
    return [mount for mount in mountinfo.read() if _is_ours(mount, root, run.stage, job)]


def held_by(found: Survey, root: str, stage: str, job: str) -> processes.Held:
    """What no process may hold, for `processes.holders`."""
    devices = {m.device for m in found.mounts if Label.parse(m.source) or m.source.startswith("/dev/loop")}
    return processes.Held((root, stage), devices, job, set(found.loops))


def _record_in_words(record: "Record | None", remains: "list[str]") -> str:
    if record is None:
        return "an unreadable record" if RECORD in remains else f"{', '.join(remains[:3])} without a record"
    return "the record" if record.is_of_this_boot else "a record of another boot"


def _is_ours(mount: Mount, root: str, stage: str, job: str) -> bool:
    point = mount.point
    if any(point == folder or point.startswith(folder + "/") for folder in (root, stage)):
        return True
    label = Label.parse(mount.source)
    return label is not None and (not job or label.job == job)


def _loops(nid: int, job: str, record: "Record | None") -> "dict[str, str]":
    """Our loop devices: path → name. One bound to the record's image that has no name yet is ours too: a kernel that
    binds and names in two steps was left between them."""
    wanted = loop.label(nid, job)
    found = {}
    for path, (name, backing) in loop.names().items():
        named = name == wanted if job else name.startswith(wanted)
        if named:
            found[path] = name
        elif not name and record and backing == record.image and record.is_of_this_boot:
            found[path] = loop.label(nid, record.job)
    return found
