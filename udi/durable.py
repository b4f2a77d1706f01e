"""The one atomic write: small files that survive a crash complete or not at all.

A file is written under a temporary name in its own directory, synchronized, and renamed; whatever fails on the way, no
temporary file is left. (The node side has its own in `udiroot.record`: it can import nothing of this.)
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence

from udi.oserrors import reason
from udiroot.errors import UpstreamFailed

TEMPORARY = ".new-"
"""How the name of a file that is being written begins."""
_MAX_BYTES = 16 << 20


def write(path: str, data: bytes | str, *, mode: int = 0o600, alone: bool = False, lasting: bool = True) -> None:
    """Replace the file at `path`, with its mode set before it has its name. Raises OSError.

    `alone` says that no other process writes this file now: then what a killed one left of it is replaced too, and is
    found by its name (`unfinished`). One that need not be `lasting` is replaced as a whole too, but a crash of the host
    may lose it, and nobody waits for the disk.
    """
    if alone:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(unfinished(path))
    _put([(unfinished(path) if alone else _unique(path), path, data, mode)], lasting=lasting)


def write_all(files: Sequence[tuple[str, bytes | str, int]]) -> None:
    """Replace files, each given with its mode, and none before all are on the disk. Raises OSError with the path."""
    _put([(_unique(path), path, data, mode) for path, data, mode in files])


def _unique(path: str) -> str:
    return f"{os.path.dirname(path)}/{TEMPORARY}{os.urandom(12).hex()}"


def _put(files: Sequence[tuple[str, str, bytes | str, int]], *, lasting: bool = True) -> None:
    """Write each file under its first name, then give each its second one."""
    staged: list[str] = []
    at = ""
    try:
        for temporary, path, data, mode in files:
            at = path
            staged.append(temporary)
            _write_new(temporary, data, mode, lasting=lasting)
        for temporary, path, _, _ in files if lasting else ():
            at = path
            _synchronize(temporary)
        for temporary, path, _, _ in files:
            at = path
            os.rename(temporary, path)
    except BaseException as error:
        if isinstance(error, OSError):
            error.filename = at
        for temporary in staged:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
        raise
    if not lasting:
        return
    for directory in {os.path.dirname(path): None for _, path, _, _ in files}:
        sync_directory(directory)


def _write_new(path: str, data: bytes | str, mode: int, *, lasting: bool) -> None:
    """A new file. The way of a lasting one to the disk has begun: where there are thousands, the first one that is
    synchronized then takes most of the others along, and 5,000 take a few seconds in place of fifty."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data.encode() if isinstance(data, str) else data)
        stream.flush()
        os.fchmod(descriptor, mode)
        if lasting:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)  # Linux starts to write out what is dirty


def _synchronize(path: str, kind: int = 0) -> None:
    """Wait until the disk has it. Raises OSError, also for what failed while it was written out before."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | kind)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unfinished(path: str) -> str:
    """Where a file is while one who is alone writes it."""
    return f"{os.path.dirname(path)}/{TEMPORARY}{os.path.basename(path)}"


def write_text(path: str, text: str) -> None:
    """Replace a file of mode 0600 in a directory of mode 0700, which is made where it does not exist.

    Raises UpstreamFailed: a disk that cannot be written is the site's to fix.
    """
    write_texts({path: text})


def write_texts(texts: Mapping[str, str]) -> None:
    """Replace such files, each path with its text, and none before all are on the disk: many take little more time than
    one. Raises UpstreamFailed, and has replaced none then unless it is the disk that failed at the very end."""
    try:
        for directory in {os.path.dirname(path): None for path in texts}:
            make_directory(directory)
        write_all([(path, text, 0o600) for path, text in texts.items()])
    except OSError as error:
        raise UpstreamFailed(f"{error.filename} cannot be written: {reason(error)}") from error


def read_text(path: str) -> str:
    """The file's text. Raises OSError; a symbolic link is not followed."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)) as stream:
        return stream.read(_MAX_BYTES)


def make_directory(path: str) -> None:
    """The directory, 0700, and those above it. Raises OSError."""
    make_public_directory(os.path.dirname(path))
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)


def make_public_directory(path: str) -> None:
    """The directory, and those above it: the missing ones get mode 0755, whatever the umask. Raises OSError."""
    if not path or os.path.isdir(path):
        return
    make_public_directory(os.path.dirname(path))
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        if not os.path.isdir(path):  # another process made it meanwhile, and gives it its mode
            raise
        return
    os.chmod(path, 0o755)  # noqa: S103 - a directory that everybody may enter


def remove(*paths: str, alone: bool = False) -> None:
    """Remove those of the files that exist, and where one who is `alone` writes them also what a killed one left of
    them. Raises OSError at the first one that cannot be removed."""
    directories: dict[str, None] = {}
    try:
        for path in paths:
            for each in (unfinished(path), path) if alone else (path,):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(each)
                    directories[os.path.dirname(each)] = None
    finally:
        for directory in directories:
            sync_directory(directory)


def sync_directory(path: str) -> None:
    """Make what was renamed or removed in the directory durable. Raises OSError."""
    _synchronize(path, os.O_DIRECTORY)
