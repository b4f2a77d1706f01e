"""Other ways for a loop device to read an image's file than setupRoot's, which docs/pynamic.md compares with it.

setupRoot reads the file buffered and advises the kernel to read it far ahead. A way is set on the device when the root
has been set up and before the program is run, so that all of them are set up by the same setupRoot.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from udiroot import loop
from udiroot.errors import SetupFailed

_CHANGE_FD, _SET_DIRECT_IO = 0x4C06, 0x4C08
"""linux/loop.h."""


@dataclass(frozen=True)
class Reading:
    """A way to read: its name, whether the file was advised, direct I/O, and the device's own read-ahead in KiB."""

    name: str
    advised: bool = True
    direct: bool = False
    read_ahead: int | None = None

    def set(self, image: Path) -> None:
        """Read the file `image` so, by the loop device that is bound to it. Raises SetupFailed where that cannot be."""
        path = _device_of(image)
        try:
            device = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if not self.advised:
                    _open_anew(device, image)
                if self.direct:
                    fcntl.ioctl(device, _SET_DIRECT_IO, 1)
            finally:
                os.close(device)
            if self.read_ahead is not None:
                Path(f"/sys/block/{Path(path).name}/queue/read_ahead_kb").write_text(str(self.read_ahead))
        except OSError as error:
            raise SetupFailed(f"{path} does not read {image} {self.name}: {error.strerror}") from error


READINGS = (
    Reading("without the advice", advised=False),
    Reading("direct I/O", direct=True),
    Reading("the loop device reads ahead 0", read_ahead=0),
    Reading("the loop device reads ahead 4 MiB", read_ahead=4096),
)


def _device_of(image: Path) -> str:
    descriptor = os.open(image, os.O_PATH | os.O_CLOEXEC)  # no operation of the store but its look-up, which is known
    try:
        wanted = loop.file_id(descriptor)
    finally:
        os.close(descriptor)
    found = [path for path, (_, _, file) in loop.bound().items() if file == wanted]
    if len(found) != 1:
        raise SetupFailed(f"{len(found)} loop devices are bound to {image}, must be one")
    return found[0]


def _open_anew(device: int, image: Path) -> None:
    """Bind a read-only device to another opening of the same file. What was advised, was advised to the old one.

    Linux calls that a change of medium: squashfs goes on, of new kernels' ext4 each access fails.
    """
    descriptor = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(device, _CHANGE_FD, descriptor)
    finally:
        os.close(descriptor)
