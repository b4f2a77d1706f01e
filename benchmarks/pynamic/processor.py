"""Seconds of a core that no program is charged for: those of the kernel's own threads, such as loop devices have."""

from __future__ import annotations

from pathlib import Path

_KTHREADD = 2
"""The parent of all of them."""


def kernel_threads() -> dict[int, float]:
    """What each of the kernel's threads has taken so far, by its number, whoever in the machine needed it."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(") ")[2].split()[1])
                if parent == _KTHREADD:
                    found[int(entry.name)] = int((entry / "schedstat").read_text().split()[0]) / 1e9
            except (FileNotFoundError, ProcessLookupError):  # it has ended in between
                continue
    return found


def since(before: dict[int, float]) -> float:
    """What the kernel's threads have taken since then. Those that have ended are not known any more."""
    return sum(seconds - before.get(thread, 0.0) for thread, seconds in kernel_threads().items())
