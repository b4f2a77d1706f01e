"""The image's own /etc/passwd and /etc/group, judged while they are packed: a node merges them with the site's.

A fault in them is the image's, and is reported by whoever pulls it, not by the first job that uses it.
"""

from __future__ import annotations

from udiroot.errors import ImageInvalid, printable
from udiroot.fields import LARGEST_ID

MAX_BYTES = 1 << 20
"""Bytes that a node reads of each file."""
NUMBERS = {b"passwd": (2, 3), b"group": (2,)}
"""The files, each with the places of its numbers in a line."""
_MAX_DIGITS = len(str(LARGEST_ID))


def check_size(name: bytes, size: int) -> None:
    """Raises ImageInvalid for a file that no node would read."""
    if size > MAX_BYTES:
        raise ImageInvalid(f"/etc/{name.decode()} of the image has {size} bytes, the limit is {MAX_BYTES}")


def check_accounts(name: bytes, text: bytes) -> None:
    """Raises ImageInvalid for a number that no account can have, and for what is not text.

    Lines of other forms (`+::::::`, comments) name no account, and are passed over.
    """
    if b"\0" in text:
        raise ImageInvalid(f"/etc/{name.decode()} of the image is not a text file")
    for count, line in enumerate(text.split(b"\n"), 1):
        fields = line.split(b":", 4)
        for place in NUMBERS[name]:
            digits = fields[place].lstrip(b"0") if len(fields) > place and fields[place].isdigit() else b""
            if len(digits) > _MAX_DIGITS or int(digits or b"0") > LARGEST_ID:
                number = printable(digits[:20].decode())
                raise ImageInvalid(
                    f"/etc/{name.decode()} of the image, line {count}: {number}{'…' * (len(digits) > 20)} is too large"
                    f" for an account's number"
                )
