"""Reading small files of /proc and /sys by bare system calls: `open` makes five where three are enough."""

import os


def read(path: str) -> bytes:
    """All bytes of a file, read to its end. Raises OSError as open(2) and read(2) do."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(descriptor, 65536)
        while data:
            more = os.read(descriptor, 65536)
            if not more:
                break
            data += more
        return data
    finally:
        os.close(descriptor)
