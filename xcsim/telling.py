"""How a demo tells what it does: its steps, what programs print, and what must hold."""

from __future__ import annotations

from rich.console import Console

from udiroot.errors import UdiError

out = Console(highlight=False, soft_wrap=True)


class DemoFailed(UdiError):
    """Something that a demo claims is not so."""


def step(text: str) -> None:
    """What comes next."""
    out.print(f"\n== {text}", style="bold")


def show(text: str) -> None:
    """What a program has printed."""
    for line in text.rstrip().splitlines():
        out.print(f"   {line}", markup=False)


def require(holds: bool, otherwise: str) -> None:
    """Raises DemoFailed where it does not hold."""
    if not holds:
        raise DemoFailed(otherwise)
