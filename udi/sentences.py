"""What a program says to a user: one printable line."""

from __future__ import annotations

from udi.log import plain, write_line
from udiroot.errors import UdiError

_MAX_LINE = 1000


def sentence(error: UdiError) -> str:
    """An error and its hint as one printable line."""
    return plain(f"{error.message} ({error.hint})" if error.hint else error.message, _MAX_LINE)


def report(program: str, message: str) -> None:
    """Write the line to standard error; that it is closed, or takes nothing, is not an error."""
    write_line(f"{program}: {message}")
