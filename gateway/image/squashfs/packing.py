"""The program of a process that packs (`gateway.image.squashfs.processes`): it does what it is told until nobody can
tell it any more.

    python -I -m gateway.image.squashfs.packing SOCKET MEMORY NAME LEVEL BLOCK

SOCKET and MEMORY are descriptors; its starter has mapped MEMORY as well. Orders and answers are messages, an answer for
each order and in the same order. What is to be packed has a place in MEMORY: it is there, or is read to it from a
layer, whose descriptor was inherited. Its blocks then replace it there.

It imports little: a conversion waits for its start.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
import sys
from array import array
from collections.abc import Sequence

from gateway.image.squashfs.compressors import compressor
from gateway.image.squashfs.packer import Packer
from gateway.image.squashfs.pieces import Range, TooShort, read

ORDER = struct.Struct("=iqiq?")
"""Descriptor of a layer, or IN_PLACE; position in it; bytes; their place; whether they are one block, whatever is in
it."""
IN_PLACE = -1
WORD = "I"
DONE, TOO_SHORT, NO_MEMORY, FAILED = range(4)
"""The first word of an answer. After DONE: bytes of all blocks, and the word of each. After FAILED: the errno."""


def main(argv: Sequence[str]) -> None:
    """Carry out orders until nobody can give any more, or take an answer: the starter may be killed at any moment."""
    descriptor, memory, name, level, block_size = int(argv[0]), int(argv[1]), argv[2], int(argv[3]), int(argv[4])
    packer = Packer(compressor((name, level or None), block_size), block_size)
    try:
        with mmap.mmap(memory, 0) as mapped, memoryview(mapped) as places:
            while order := os.read(descriptor, ORDER.size):
                os.write(descriptor, array(WORD, _carried_out(order, packer, places)))
    except (BrokenPipeError, ConnectionResetError):
        return


def _carried_out(order: bytes, packer: Packer, places: memoryview) -> Sequence[int]:
    descriptor, position, size, place, is_whole = ORDER.unpack(order)
    try:
        with places[place : place + size] as data:
            if descriptor != IN_PLACE:
                read(Range(descriptor, position, size), data)
            used, words = packer.whole(data) if is_whole else packer.blocks(data)
        return (DONE, used, *words)
    except TooShort:
        return (TOO_SHORT,)
    except MemoryError:
        return (NO_MEMORY,)
    except OSError as error:
        return (FAILED, error.errno or errno.EIO)


if __name__ == "__main__":
    main(sys.argv[1:])
