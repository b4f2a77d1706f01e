"""Headers of tar archives made byte by byte, and what reading them costs: for tests of what a stranger may send."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from gateway.image.budgets import HeaderBudget
from gateway.image.tar_reader import BLOCK, Member, members
from udiroot.errors import ImageInvalid

END = bytes(2 * BLOCK)


class Counted:
    """A stream in memory that counts what is read, and does not go back."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0
        self.reads = 0

    def read(self, count: int) -> bytes:
        assert count >= 0
        self.reads += 1
        piece = self._data[self.position : self.position + count]
        self.position += len(piece)
        return piece

    def skip(self, count: int) -> None:
        assert count >= 0, "a stream is read once, from its start"
        self.position += count
        if self.position > len(self._data):
            raise ImageInvalid("cut off")


def number_field(value: int | bytes) -> bytes:
    """A size of a header: octal, base 256 for what is not, or the bytes as they are."""
    if isinstance(value, bytes):
        return value.ljust(12, b"\0")[:12]
    if 0 <= value < 1 << 33:
        return b"%011o\0" % value
    return (value & ((1 << 96) - 1) | 1 << 95).to_bytes(12, "big")


def block(
    kind: bytes, size: int | bytes = 0, name: bytes = b"x", uid: bytes = b"0000000\0", more: bytes = b""
) -> bytes:
    """A header with any type and size, whose checksum is right. `more` are its bytes from 386 on (old GNU sparse)."""
    header = bytearray(BLOCK)
    header[0 : len(name)] = name
    header[100:108], header[108:116], header[116:124] = b"0000644\0", uid, uid
    header[124:136], header[136:148] = number_field(size), b"00000000000\0"
    header[156:157], header[257:265] = kind, b"ustar  \0"
    header[386 : 386 + len(more)] = more
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def extension(kind: bytes, text: bytes) -> bytes:
    return block(kind, len(text)) + padded(text)


def padded(text: bytes) -> bytes:
    return text + bytes(-len(text) % BLOCK)


def record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    length = len(body) + 1
    while len(b"%d" % length) + len(body) != length:
        length += 1
    return b"%d" % length + body


def sparse_1_0(parts: int, text: bytes | None = None) -> bytes:
    """A member whose sparse map is before its data; `text` replaces the map."""
    if text is None:
        text = b"%d\n" % parts + b"".join(b"%d\n1\n" % (2 * number) for number in range(parts))
    content = padded(text) + b"x" * parts
    keys = {b"major": b"1", b"minor": b"0", b"name": b"s", b"realsize": b"%d" % (2 * parts)}
    records = b"".join(record(b"GNU.sparse." + key, value) for key, value in keys.items())
    return extension(b"x", records) + block(b"0", len(content)) + padded(content)


def read(data: bytes, headers: HeaderBudget | None = None) -> list[Member]:
    return list(members(Counted(data), "archive", headers))


def reason(call: Callable[[], object]) -> ImageInvalid:
    with pytest.raises(ImageInvalid) as caught:
        call()
    return caught.value


def steps(call: Callable[[], object]) -> int:
    """Lines of Python that a call executes."""
    count = 0

    def line(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += 1
        return line

    before = sys.gettrace()
    sys.settrace(line)
    try:
        call()
    finally:
        sys.settrace(before)
    return count
