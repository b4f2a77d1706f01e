"""The image of a job: opened once with the store account's rights, checked on its descriptor, mounted from it.

A file that the user could write would feed the kernel's file systems whatever the user likes; so it must be owned by
the store's account, writable by nobody else, and of the format that the plan names.
"""

import os
import stat

from udiroot import loop
from udiroot.binds import FROZEN, bind
from udiroot.errors import ImageInvalid, SetupFailed
from udiroot.kernel import mount
from udiroot.plan import NodePlan
from udiroot.rights import FileRights

_MAGIC = {"squashfs": (0, b"hsqs"), "ext4": (1080, b"\x53\xef")}
"""The offset of each format's magic number in the file, in bytes."""
_OPTIONS = {"squashfs": "", "ext4": "noload"}
"""ext4: the journal is not replayed, since the device is read-only."""


def mount_image(plan: NodePlan, node: str, target: str) -> None:
    """Mount the plan's image on the directory `target`, read-only, without set-uid programs and devices.

    Raises SetupFailed where the file cannot be opened, ImageInvalid where it is not what the plan names.
    """
    descriptor = _open(plan)
    try:
        if plan.image_format == "directory":
            bind(f"/proc/self/fd/{descriptor}", target, FROZEN)
            return
        _read_far_ahead(descriptor)
        device, path = loop.attach(descriptor, loop.label(node, plan.job))
        try:
            mount(path, target, plan.image_format, FROZEN, _OPTIONS[plan.image_format])
        except OSError as error:
            raise ImageInvalid(f"image {plan.image_id[:12]} cannot be mounted: {error.strerror}") from error
        finally:
            os.close(device)
    finally:
        os.close(descriptor)


def _read_far_ahead(descriptor: int) -> None:
    """Double the read-ahead on the image's file, which the loop device reads through this descriptor.

    Where the store's client reads ahead 128 KiB, a program that loads its libraries then takes a fourth to two fifths
    fewer operations of the store; where it reads ahead 1 MiB, about as many as before (docs/pynamic.md).
    """
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    except OSError:  # only advice: a file system without it is read all the same
        pass


def _open(plan: NodePlan) -> int:
    is_directory = plan.image_format == "directory"
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | (os.O_DIRECTORY if is_directory else 0)
    try:
        with FileRights(plan.store_uid, plan.store_gid):
            descriptor = os.open(plan.image_path, flags)
    except OSError as error:
        raise SetupFailed(f"image {plan.image_path}: {error.strerror}") from error
    fault = _fault(plan, descriptor)
    if fault:
        os.close(descriptor)
        raise ImageInvalid(f"image {plan.image_path}: {fault}")
    return descriptor


def _fault(plan: NodePlan, descriptor: int) -> str:
    """What is wrong with the opened image; nothing, if it is what the plan names."""
    status = os.fstat(descriptor)
    if status.st_uid != plan.store_uid:
        return f"owned by uid {status.st_uid}, must be owned by uid {plan.store_uid} (the store's account)"
    if status.st_mode & 0o022:
        return f"mode {stat.S_IMODE(status.st_mode):04o} allows others to write it"
    if plan.image_format == "directory":
        return ""
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file"
    return "" if has_file_system(descriptor, plan.image_format) else f"no {plan.image_format} file system in it"


def has_file_system(descriptor: int, image_format: str) -> bool:
    """Whether an image file begins as one of that format does."""
    offset, magic = _MAGIC[image_format]
    return os.pread(descriptor, len(magic), offset) == magic
