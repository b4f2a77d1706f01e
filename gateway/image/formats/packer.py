"""Running the programs that make and check image files: `udi.command`, with a packer's environment and limits.

A packer may take as long as its image is large, so what is limited is the time without progress, and the time that it
takes to exit after its last input.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from udi.command import Feed, run, run_fed

__all__ = ["Feed", "count_lines", "pack", "run_tool"]

_STANDSTILL = 300.0
"""Seconds without a byte taken, or between the last byte and the exit."""
_PIPE_SIZE = 1 << 20
FEW_ARENAS = {"MALLOC_ARENA_MAX": "2"}
"""For glibc, which otherwise reserves 64 MiB of addresses for each thread: a limit on memory counts addresses."""
_ENVIRONMENT = {"SOURCE_DATE_EPOCH": "0", **FEW_ARENAS}
"""With the time set, the same tree gives the same file."""
_ROOM = 1 << 20
"""Bytes: more than a packer writes at once, so that where these fit, it was not for want of room that it failed."""
_NO_MEMORY = (b"out of memory", b"cannot allocate memory", b"bad_alloc")


def pack(argv: Sequence[str], feed: Feed, advance: Callable[[int], None], output: str = "") -> None:
    """Run `argv` with the stream that `feed` writes as its input, to make `output`; `advance` gets the bytes of each
    write.

    Raises UpstreamFailed when the program cannot be run, dies, fails or does not read everything, OSError when it fails
    where nothing more can be written, MemoryError when it gets no more memory, TimedOut at a standstill, and whatever
    `feed` raises.
    """

    def counted(descriptor: int, wrote: Callable[[int], None]) -> None:
        def on_write(count: int) -> None:
            wrote(count)
            advance(count)

        feed(descriptor, on_write)

    done = run_fed(argv, counted, standstill=_STANDSTILL, pipe_size=_PIPE_SIZE, environment=_ENVIRONMENT)
    if done.exit_code and any(words in done.stderr.lower() for words in _NO_MEMORY):
        raise MemoryError
    if done.exit_code and output:
        _require_room(output)
    done.require_success()


def run_tool(argv: Sequence[str], seconds: float, output: str = "") -> None:
    """Run a short command, all of whose output explains a failure. Raises UpstreamFailed, TimedOut; OSError when one
    that writes `output` fails where nothing more can be written."""
    done = run(argv, seconds=seconds, merge=True, environment=_ENVIRONMENT)
    if done.exit_code and output:
        _require_room(output)
    done.require_success()


def _require_room(output: str) -> None:
    """Programs do not tell why they could not write (tar2sqfs says `I/O error`), so that is found out beside the file,
    while what they had written is still there. Raises OSError."""
    path = f"{output}.room"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.unlink(path)
        piece = os.urandom(_ROOM)  # zeros take no room on a file system that compresses
        while piece:
            piece = piece[os.write(descriptor, piece) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def count_lines(argv: Sequence[str], seconds: float) -> int:
    """Run a command and count the lines that it prints, however many. Raises UpstreamFailed, TimedOut."""
    lines = 0

    def count(piece: bytes) -> None:
        nonlocal lines
        lines += piece.count(b"\n")

    run(argv, seconds=seconds, on_stdout=count, environment=_ENVIRONMENT).require_success()
    return lines
