"""Removing an image from a disk, finished or not: a file, or an unpacked tree of any depth."""

from __future__ import annotations

import contextlib
import os
import stat

from udi.command import run

_RM = "/bin/rm"
_SECONDS = 7200.0


def remove_image(path: str) -> None:
    """Remove the file or tree at `path`, if there is one. Raises OSError, UpstreamFailed, TimedOut.

    A tree may be deeper than Python's recursion, and than one process may have open directories; rm(1) is made for
    that, and follows no link.
    """
    try:
        is_tree = stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return
    if is_tree:
        run([_RM, "-rf", "--one-file-system", "--", path], seconds=_SECONDS).require_success()
        return
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
