"""The comment line of a job script that fixes which image the reference stood for when the job was submitted.

The submit filter writes it and the prologue reads it. It is a line of the script, since `#PBS -v` lines that a filter
adds are lost where the command line has `-v` (torque-reference d). Users can write one too, so it is user text.
"""

from __future__ import annotations

import re

from udi.registries import RegistryConfig
from udi.request import Pin
from udiroot.errors import UsageError

PIN_PREFIX = "#UDI pinned "
"""Begins the line; the reference, a blank and the image id follow."""

_PREFIX = PIN_PREFIX.encode()
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
    kept = [each for each in script.splitlines(keepends=True) if not each.startswith(_PREFIX)]
    index = 1 if kept and kept[0].startswith(b"#!") else 0
    if index and not kept[0].endswith(b"\n"):
        kept[0] += b"\n"
    kept.insert(index, line(pin).encode() + b"\n")
    return b"".join(kept)


def _parsed(registries: RegistryConfig, text: str) -> Pin | None:
    parts = text.split()
    if len(parts) != 2 or not _ID.fullmatch(parts[1]):
        return None
    try:
        return Pin(registries.parse(parts[0]), parts[1])
    except UsageError:
        return None
