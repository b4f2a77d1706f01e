"""What shifter-xc has on a node, according to the kernel and the record: the one survey that teardown, its own
verification and the health check share.

A mount is managed by shifter-xc where it carries our label, or is on or under the root or the stage; a loop device is
where it has our name. Mounts and loop devices of other programs do not count.
"""

import os
import time

from udiroot import holders, loop, mountinfo
from udiroot.errors import TeardownIncomplete, counted
from udiroot.holders import Held
from udiroot.mountinfo import Mount
from udiroot.processes import Process
from udiroot.record import RECORD, Record, RunDirectory

_LOOP_MAJOR = 7
"""The major number of all loop devices."""


class Survey:
    """Everything that shifter-xc has on a node at one moment.

    `mounts` in the order of mounting; `loops` are device paths; `foreign` are processes whose own mount namespace
    holds some of our mounts. `remains` are names in the run directory. `jobs` are the jobs named by labels and record;
    `others` says whether the node also has something of a job that was not asked for. `image` is the device and the
    directory in it of an image that is a directory.
    """

    def __init__(
        self,
        mounts: "list[Mount]",
        loops: "list[str]",
        record: "Record | None",
        remains: "list[str]",
        jobs: "set[str]",
        *,
        others: bool,
        image: "tuple[int, str] | None",
    ) -> None:
        self.mounts, self.loops, self.record = mounts, loops, record
        self.remains, self.jobs, self.others, self.image = remains, jobs, others, image
        self.label = next((label for m in mounts if (label := m.label)), None)
        self.foreign: list[Process] = []

    @property
    def clean(self) -> bool:
        """Whether nothing is left."""
        return not (self.mounts or self.loops or self.remains or self.foreign)

    @property
    def is_dead(self) -> bool:
        """Whether only files are left: of another boot, or of a killed writer that had done nothing else."""
        live = self.record is not None and self.record.is_of_this_boot
        return not (self.mounts or self.loops or self.foreign or live)

    def incomplete(self, why: str = "", holders: "tuple[Process, ...]" = ()) -> TeardownIncomplete:
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


def survey(
    root: str, run: RunDirectory, node: str, *, job: str = "", foreign: bool = True, deadline: float = float("inf")
) -> Survey:
    """Look at the node. With `job`, another job's loop devices and labelled mounts elsewhere do not count.

    `foreign` also looks into other processes' mount namespaces, until `deadline`, a time of time.monotonic(); raises
    TimedOut where that is not enough.
    """
    table = mountinfo.read()
    mounts = [mount for mount in table if _is_ours(mount, root, run.stage, job)]
    record = run.read()
    loops, other_loops = _loops(node, job, record)
    jobs = {label.job for m in mounts if (label := m.label)}
    jobs |= {owner for name in loops.values() if (owner := loop.job_of(name))}
    if record:
        jobs.add(record.job)
    labels = (mount.label for mount in table)
    others = bool(job) and (other_loops or any(label is not None and label.job != job for label in labels))
    image = _image_directory(table, record) if record else None
    found = Survey(mounts, sorted(loops), record, run.names(), jobs, others=others, image=image)
    if foreign:
        held = held_by(found, root, run.stage, job)
        found.foreign = list(holders.holders(held, deep=False, deadline=deadline))
    return found


def held_by(found: Survey, root: str, stage: str, job: str) -> Held:
    """What no process may hold, for `holders.holders`."""
    devices = {m.device for m in found.mounts if m.label or m.source.startswith("/dev/loop")}
    for path in found.loops:  # an image's file system may have no mount of its own any more, and still be in use
        devices.add(os.makedev(_LOOP_MAJOR, int(path.removeprefix("/dev/loop"))))
    return Held((root, stage), devices, job, set(found.loops), found.image)


def _image_directory(table: "list[Mount]", record: Record) -> "tuple[int, str] | None":
    """Where the record's image is, if it is a directory: the device, and its path from that file system's root.

    A mount of it has the source of the site's file system, and shows by that place alone that it is ours.
    """
    above = [mount for mount in table if (record.image + "/").startswith(mount.point.rstrip("/") + "/")]
    if not record.is_of_this_boot or not above:
        return None
    nearest = max(above, key=lambda mount: len(mount.point))
    inside = record.image[len(nearest.point.rstrip("/")) :]
    return nearest.device, nearest.root.rstrip("/") + inside


def _remains_in_words(record: "Record | None", remains: "list[str]") -> str:
    if record is None:
        return "unreadable record" if RECORD in remains else f"{', '.join(remains[:3])} without a record"
    return "record" if record.is_of_this_boot else "record of an earlier boot"


def _is_ours(mount: Mount, root: str, stage: str, job: str) -> bool:
    point = mount.point
    if any(point == directory or point.startswith(directory + "/") for directory in (root, stage)):
        return True
    label = mount.label
    return label is not None and (not job or label.job == job)


def _loops(node: str, job: str, record: "Record | None") -> "tuple[dict[str, str], bool]":
    """Our loop devices, path → name, and whether there are some of other jobs. One that has no name yet, bound to the
    record's image or to the file of a cache that it names, is ours too: a kernel that binds and names in two steps was
    interrupted between them."""
    wanted, of_any = loop.label(node, job), loop.label(node, "")
    found, others = {}, False
    for path, (name, backing, file) in loop.bound().items():
        if name == wanted if job else name.startswith(wanted):
            found[path] = name
        elif not name and record and record.is_of_this_boot and (backing == record.image or file == record.cache):
            found[path] = loop.label(node, record.job)
        others = others or (name.startswith(of_any) and path not in found)
    return found, others
