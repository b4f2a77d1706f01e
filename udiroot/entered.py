"""Whether anything was read from a job's image after its root was set up: where nothing was, no program of it ran.

A program enters a root by chroot, which leaves no trace. But each set-up mounts the image anew, with nothing of it in
the kernel's caches: a program of the image, or its dynamic loader, is read from the loop device, and the kernel counts
a device's reads. The count at the end of set-up is kept in the record until the teardown. Listing a directory or
asking for the state of a file may read nothing, and is no entering either.
"""

import os

from udiroot import mountinfo, smallfile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from udiroot.record import Record

UNREAD = "unread=1"
"""What the report of a teardown counts where nothing was read."""
_LOOP_MAJOR = 7


def reads(root: str) -> str:
    """The loop device of the image in a root and how much was read from it, as `7:0 123`. Raises OSError.

    Empty where the image has no loop device, or where other mounts in the root have one too.
    """
    device = _device(root)
    # The first field of a device's counts is that of its completed reads (kernel: admin-guide/iostats).
    return device and f"{device} {smallfile.read(f'/sys/dev/block/{device}/stat').decode().split()[0]}"


def is_unread(record: "Record | None", job: str, root: str) -> bool:
    """Before a teardown: whether nothing was read from the job's image since its set-up. False where that is not
    certain."""
    if record is None or record.job != job or not record.reads:
        return False
    try:
        return record.reads == reads(root)
    except OSError:
        return False


def _device(root: str) -> str:
    """From the table of mounts: a look at the mounts themselves would wait for a file system that does not answer."""
    devices = {mount.device for mount in mountinfo.below(mountinfo.read(), root)}
    loops = [device for device in devices if os.major(device) == _LOOP_MAJOR]
    return f"{_LOOP_MAJOR}:{os.minor(loops[0])}" if len(loops) == 1 else ""
