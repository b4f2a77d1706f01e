"""The comment lines of a job script that fix what a request stood for when the job was submitted: which image, and what
an environment file said.

The submit filter writes them and the prologue reads them. They are lines of the script, since `#PBS -v` lines that a
filter adds are lost where the command line has `-v` (torque-reference d). Users can write some too, so they are user
text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from udi.carried import MAX_TEXT
from udi.registries import RegistryConfig
from udi.request import Pin
from udiroot.errors import UsageError

PIN_PREFIX = "#UDI pinned "
"""Begins the line; the reference, a blank and the image id follow."""

CARRIED_PREFIX = "#UDI carries "
"""Begins each line of what the job carries of an environment file: `udi.carried`'s text, in pieces."""

_PREFIX = PIN_PREFIX.encode()
_CARRIED = CARRIED_PREFIX.encode()
_PIECE = 800
"""Characters of a piece: some qsub read a line in pieces of their own, and take a comment's rest for a command."""
_ID = re.compile(r"[0-9a-f]{64}")
_SEARCHED_BYTES = 1 << 20


def line(pin: Pin) -> str:
    """The script line, without newline."""
    return f"{PIN_PREFIX}{pin.reference} {pin.id}"


def find_pin(registries: RegistryConfig, script: bytes) -> Pin | None:
    """The pin in a job script: the first such line; None where there is none, or where that line is not valid."""
    for raw in script[:_SEARCHED_BYTES].split(b"\n"):
        if raw.startswith(_PREFIX):
            return _parsed(registries, raw.removeprefix(_PREFIX).decode("utf-8", "replace"))
    return None


def with_pin(script: bytes, pin: Pin) -> bytes:
    """The script with the pin as the line after `#!`, or as its first line; earlier pins are removed."""
    return _with_lines(script, _PREFIX, [line(pin)])


def carried_text(script: bytes) -> str:
    """What a job script carries of an environment file; empty where it carries nothing."""
    pieces, size = list[bytes](), 0
    for raw in script[:_SEARCHED_BYTES].split(b"\n"):
        if raw.startswith(_CARRIED) and size <= MAX_TEXT:
            pieces.append(raw.removeprefix(_CARRIED).strip())
            size += len(pieces[-1])
    return b"".join(pieces).decode("ascii", "replace")


def with_carried(script: bytes, text: str) -> bytes:
    """The script with what it carries, after `#!` or at its beginning; what it carried before is removed, and a pin,
    which was another submission's."""
    pieces = [f"{CARRIED_PREFIX}{text[at : at + _PIECE]}" for at in range(0, len(text), _PIECE)]
    return _with_lines(_with_lines(script, _PREFIX, []), _CARRIED, pieces)


def _with_lines(script: bytes, prefix: bytes, lines: Sequence[str]) -> bytes:
    kept = [each for each in script.splitlines(keepends=True) if not each.startswith(prefix)]
    index = 1 if kept and kept[0].startswith(b"#!") else 0
    if index and not kept[0].endswith(b"\n"):
        kept[0] += b"\n"
    kept[index:index] = [each.encode() + b"\n" for each in lines]
    return b"".join(kept)


def _parsed(registries: RegistryConfig, text: str) -> Pin | None:
    parts = text.split()
    if len(parts) != 2 or not _ID.fullmatch(parts[1]):
        return None
    try:
        return Pin(registries.parse(parts[0]), parts[1])
    except UsageError:
        return None
