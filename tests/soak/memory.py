"""The memory of the processes that never end: after a warm-up it must not grow."""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

MOST_GROWTH = 8 << 10
"""KiB above what a process had when it was warm: threads come and go, a leak of each request does not. docs/gateway.md
states it of the gateway's service."""


def resident(pid: int) -> int:
    """KiB that a process has in memory; 0 where it has ended."""
    try:
        found = re.search(r"^VmRSS:\s*([0-9]+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(found[1]) if found else 0


def named(*words: str) -> list[int]:
    """The processes of this host whose command line has all of these words."""
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdecimal():
            try:
                line = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if all(word in line for word in words):
                found.append(int(directory.name))
    return found


@dataclass
class Memory:
    """What each process had when it was warm, by its number, and the most that one of its kind has had. It is warm at
    the second look, when it has lived through a round: one that was just started has asked for little yet."""

    warm: dict[int, int] = field(default_factory=dict)
    highest: dict[str, int] = field(default_factory=dict)
    compared: collections.Counter[str] = field(default_factory=collections.Counter)
    """How many looks there were at warm processes of each kind: what was never compared has not been seen to hold."""
    _seen: set[int] = field(default_factory=set)

    def grown(self, pids: Iterable[int], kind: str) -> list[str]:
        """The processes that have grown more than they may since they were warm."""
        found = []
        for pid in pids:
            now = resident(pid)
            self.highest[kind] = max(self.highest.get(kind, 0), now)
            if pid not in self._seen:
                self._seen.add(pid)
                continue
            self.compared[kind] += pid in self.warm
            if now > self.warm.setdefault(pid, now) + MOST_GROWTH:
                found.append(f"{kind} {pid} has grown from {self.warm[pid]} to {now} KiB")
        return found

    @property
    def told(self) -> str:
        kinds = (f"{kind} {most >> 10} MiB ({self.compared[kind]} compared)" for kind, most in self.highest.items())
        return "at most " + ", ".join(kinds)
