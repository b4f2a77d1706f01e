"""Reading files of /proc and /sys by bare system calls: `open` makes five where three are enough."""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK = 65536


def read(path: str) -> bytes:
    """All bytes of a small file, read to its end. Raises OSError as open(2) and read(2) do."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(descriptor, _BLOCK)
        if not data:
            return data
        parts = [data]
        while data := os.read(descriptor, _BLOCK):
            parts.append(data)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def blocks(path: str, size: int = 1 << 20) -> "Iterator[bytes]":
    """A file of any length in blocks of complete lines, each of about `size` bytes; the last line may lack its newline.

    A user decides how long the tables of his processes are, so none is ever held completely. Raises OSError.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts: list[bytes] = []
        held = 0
        while data := os.read(descriptor, _BLOCK):
            parts.append(data)
            held += len(data)
            if held >= size and b"\n" in data:
                lines, _, rest = b"".join(parts).rpartition(b"\n")
                yield lines + b"\n"
                parts, held = [rest], len(rest)
        yield b"".join(parts)
    finally:
        os.close(descriptor)
