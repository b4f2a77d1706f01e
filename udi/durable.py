"""Small files that survive a crash: whole or not at all, 0600, in folders of mode 0700 that are root's alone."""

from __future__ import annotations

import contextlib
import os

from udiroot.errors import UpstreamFailed

_MAX_BYTES = 16 << 20


def make_folder(path: str) -> None:
    """The folder, 0700, and those above it."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)


def write_text(path: str, text: str) -> None:
    """Replace the file by rename, after its bytes are on the disk; its folder is made if it is not there.

    Raises UpstreamFailed: a disk that keeps nothing is the site's trouble.
    """
    try:
        make_folder(os.path.dirname(path))
        _replace(path, text)
    except OSError as error:
        raise UpstreamFailed(f"{path} cannot be written: {error.strerror}") from error


def _replace(path: str, text: str) -> None:
    unfinished = f"{path}.{os.getpid()}.new"
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(descriptor)
    os.rename(unfinished, path)
    sync_folder(os.path.dirname(path))


def read_text(path: str) -> str:
    """The file's text. Raises OSError; a file that is no file of ours is not followed."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)) as stream:
        return stream.read(_MAX_BYTES)


def remove(path: str) -> None:
    """Remove the file; none is fine."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
        sync_folder(os.path.dirname(path))


def sync_folder(path: str) -> None:
    """What was renamed in the folder, or removed from it, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
