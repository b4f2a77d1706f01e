"""The program of a process that packs (`gateway.image.squashfs.processes`): it does what it is told until nobody can
tell it any more.

    python -I -m gateway.image.squashfs.packing SOCKET MEMORY SLOT NAME LEVEL BLOCK

SOCKET and MEMORY are descriptors. MEMORY is divided into slots of SLOT bytes, which its starter has mapped as well.
Orders and answers are messages, an answer for each order and in the same order. What is to be packed is in a slot, or
is read to it from a layer, whose descriptor was inherited; the blocks then replace it there.
"""

from __future__ import annotations

import errno
import mmap
import socket
import struct
import sys
from array import array
from collections.abc import Sequence

from gateway.image.squashfs.compressors import compressor
from gateway.image.squashfs.packer import Packer
from gateway.image.squashfs.pieces import Range, TooShort, read

ORDER = struct.Struct("=iqii?")
"""Descriptor of a layer, or IN_SLOT; position in it; bytes; slot; whether they are one block, whatever is in it."""
IN_SLOT = -1
WORD = "I"
DONE, TOO_SHORT, NO_MEMORY, FAILED = range(4)
"""The first word of an answer. After DONE: bytes of all blocks, and the word of each. After FAILED: the errno."""


def main(argv: Sequence[str]) -> None:
    """Carry out orders."""
    descriptor, memory, slot, level, block_size = map(int, (*argv[:3], *argv[4:]))
    packer = Packer(compressor((argv[3], level or None), block_size), block_size)
    with socket.socket(fileno=descriptor) as orders, mmap.mmap(memory, 0) as mapped, memoryview(mapped) as slots:
        while order := orders.recv(ORDER.size):
            orders.send(array(WORD, _carried_out(order, packer, slots, slot)))


def _carried_out(order: bytes, packer: Packer, slots: memoryview, slot: int) -> Sequence[int]:
    descriptor, position, size, number, is_whole = ORDER.unpack(order)
    try:
        with slots[number * slot : number * slot + size] as data:
            if descriptor != IN_SLOT:
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
