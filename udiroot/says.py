"""What a command that runs on a node printed, in lines of the node's own:

    UDI-SAYS <nonce> <hex>

Hexadecimal, so that nothing in it is taken for a report.
"""

import binascii
import os

MARK = "UDI-SAYS"
CHUNK = 160
"""Bytes of output in a line, which stays shorter than a report."""
MOST = 64 << 10
"""Bytes of output that are passed on."""


def say(data: bytes, nonce: str) -> None:
    """Print one chunk, in one write(2)."""
    os.write(1, f"{MARK} {nonce} {binascii.hexlify(data).decode('ascii')}\n".encode("ascii"))


def said(line: str, nonce: str) -> "bytes | None":
    """What the command printed, of one line of the node's; None for any other line."""
    fields = line.strip().split(" ")
    if len(fields) != 3 or fields[:2] != [MARK, nonce] or len(fields[2]) > 2 * CHUNK:
        return None
    try:
        return binascii.unhexlify(fields[2])
    except ValueError:
        return None
