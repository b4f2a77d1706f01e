"""Files of the site's that root goes by: nobody else may write them."""

from __future__ import annotations

import os
import stat

from udi.oserrors import reason
from udiroot.errors import ConfigError

_MAX_BYTES = 16 << 20


def trusted_text(
    path: str, *, name: str = "", directory: int | None = None, hint: str = "--config names another file"
) -> str:
    """The text of the file at `path`, or of `name` in an open `directory`, where `path` is for messages only.

    Raises ConfigError where it cannot be read, or others than root may write it.
    """
    try:
        descriptor = os.open(name or path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK, dir_fd=directory)
    except OSError as error:
        raise ConfigError(f"{path}: {reason(error)}", hint) from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_BYTES:
        os.close(descriptor)
        what = f"more than {_MAX_BYTES} bytes" if stat.S_ISREG(status.st_mode) else "not a regular file"
        raise ConfigError(f"{path}: {what}", hint)
    with os.fdopen(descriptor, "rb") as stream:
        if not is_roots(status):
            raise ConfigError(f"{path}: owned by uid {status.st_uid}, must be owned by root", f"chown root {path}")
        if status.st_mode & 0o022:
            mode = f"{stat.S_IMODE(status.st_mode):04o}"
            raise ConfigError(f"{path}: mode {mode} lets others write it", f"chmod go-w {path}")
        try:
            return stream.read().decode()
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path}: not UTF-8: {error}") from error


def is_roots(status: os.stat_result) -> bool:
    """Whether root owns a file. In a user namespace in which the host's root is nobody, what is nobody's counts too:
    no program has a right there that its caller lacks, so there is nothing to be gained by another configuration."""
    return status.st_uid == 0 or (status.st_uid == _nobody() and not _maps_root())


def _nobody() -> int:
    """The owner that the kernel shows of files whose own has no number in this namespace."""
    try:
        with open("/proc/sys/kernel/overflowuid") as stream:
            return int(stream.read())
    except OSError:
        return -1


def _maps_root() -> bool:
    try:
        with open("/proc/self/uid_map") as stream:
            return any(line.split()[1] == "0" for line in stream)
    except OSError:
        return True
