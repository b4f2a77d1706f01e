"""Files of the site's that root goes by: nobody else may write them."""

from __future__ import annotations

import os
import stat

from udi.oserrors import reason
from udiroot.errors import ConfigError

_MAX_BYTES = 16 << 20
_FROM_OUTSIDE = "this user namespace shows root's files as somebody else's; run it outside of it"


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
        if status.st_uid != 0:
            words = f"{path}: owned by uid {status.st_uid}, must be owned by root"
            raise ConfigError(words, _FROM_OUTSIDE if _has_no_root() else f"chown root {path}")
        if status.st_mode & 0o022:
            mode = f"{stat.S_IMODE(status.st_mode):04o}"
            raise ConfigError(f"{path}: mode {mode} lets others write it", f"chmod go-w {path}")
        try:
            return stream.read().decode()
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path}: not UTF-8: {error}") from error


def _has_no_root() -> bool:
    """Whether this is a user namespace in which the host's root is nobody."""
    try:
        with open("/proc/self/uid_map") as stream:
            return all(line.split()[1] != "0" for line in stream)
    except OSError:
        return False
