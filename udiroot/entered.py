"""Whether anything was read from a job's image after its root was set up: where nothing was, no program of it ran.

A program enters a root by chroot, which leaves no trace. But each set-up mounts an image file anew, with nothing of it
in the kernel's caches: a program of the image, or its dynamic loader, is read from the loop device, and the kernel
counts a device's reads. The count at the end of set-up is kept in the record until the teardown. Listing a directory or
asking for the state of a file may read nothing, and is no entering either.
"""

import os

from udiroot import loop, mountinfo, smallfile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from udiroot.record import Record

_LOOP_MAJOR = 7
_DEVICES = "/sys/dev/block"


def reads(root: str, label: str) -> str:
    """The loop device of the image in a root and how much was read from it, as `7:0 123`; `label` is the name of the
    job's devices (`udiroot.loop`). Raises OSError.

    Empty where the image has no loop device of its own, as an unpacked tree, or where the job has another one too.
    Devices of the site do not count, even where the tree is on one: others read from it as well, and what is in the
    node's cache is read without it.
    """
    ours = [device for device in _loop_devices(root) if _is_named(device, label)]
    return f"{ours[0]} {_count(ours[0])}" if len(ours) == 1 else ""


def is_unread(record: "Record | None", job: str, root: str) -> bool:
    """Before a teardown: whether nothing was read from the job's image since its set-up. False where that is not
    certain."""
    if record is None or record.job != job or not record.reads:
        return False
    device, count = record.reads.split(" ")
    try:
        return device in _loop_devices(root) and count == _count(device)
    except OSError:
        return False


def _loop_devices(root: str) -> "set[str]":
    """From the table of mounts: a look at the mounts themselves would wait for a file system that does not answer."""
    devices = {mount.device for mount in mountinfo.below(mountinfo.read(), root)}
    return {f"{_LOOP_MAJOR}:{os.minor(device)}" for device in devices if os.major(device) == _LOOP_MAJOR}


def _is_named(device: str, label: str) -> bool:
    """False also for a device that cannot be opened: one of the site's may be anything."""
    try:
        return loop.name_of(f"/dev/{os.path.basename(os.readlink(f'{_DEVICES}/{device}'))}") == label
    except OSError:
        return False


def _count(device: str) -> str:
    # The first field of a device's counts is that of its completed reads (kernel: admin-guide/iostats).
    return smallfile.read(f"{_DEVICES}/{device}/stat").decode().split()[0]
