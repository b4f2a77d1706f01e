"""Faults by name: the ways in which a test or a person can make the machine fail.

A fault is data. Each is consulted in exactly one place, which decides what happens.
"""

import dataclasses
import json
import threading
from dataclasses import dataclass
from pathlib import Path

from udiroot.errors import UsageError

KNOWN = {
    "dead-node": "xtxqtcmd: the node does not answer and nothing runs there",
    "hung-node": "xtxqtcmd: the command never returns from the node",
    "slow-node": "xtxqtcmd: the node waits VALUE seconds (default 2) before running the command",
    "lost-reply": "xtxqtcmd: the command runs; its output and its reply line are lost",
    "kill-command": "xtxqtcmd: the command is killed (SIGKILL) on the node after VALUE seconds (default 0.01)",
    "exit-1": "xtxqtcmd: the command runs; its reply line shows exit code: 1",
    "bad-exit": "xtxqtcmd: every node answers; the tool itself exits with VALUE (default 1)",
    "reservation-late": "apstat, apbasil: reservations are not listed in the first VALUE queries (default 3)",
    "reservation-gone": "apstat, apbasil: reservations are not listed at all",
    "apstat-broken": "apstat: prints an error and exits with 1",
    "basil-broken-xml": "apbasil: answers a query with half a document",
    "basil-empty": "apbasil: answers a query with nothing",
    "qstat-hangs": "qstat: never answers",
    "qstat-down": "qstat: cannot connect to the server",
    "kill-prologue": "MOM: the prologue is killed (SIGKILL) after VALUE seconds (default 0.1)",
    "reserve-refused": "apbasil: RESERVE is refused",
}


@dataclass
class Fault:
    """One fault that is set. `node` None means every node, `count` None means without limit."""

    name: str
    node: int | None = None
    count: int | None = None
    value: str = ""

    def seconds(self, default: float) -> float:
        return float(self.value or default)


class Faults:
    """The faults that are set now, kept in one file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._set: list[Fault] = []
        if path.exists():
            self._set = [Fault(**saved) for saved in json.loads(path.read_text())]

    def set(self, fault: Fault) -> None:
        if fault.name not in KNOWN:
            raise UsageError(f"no such fault: {fault.name}", "known faults: " + ", ".join(KNOWN))
        try:
            fault.seconds(0)
        except ValueError as error:
            raise UsageError(f"the value of a fault must be a number, not {fault.value!r}") from error
        self._set = [old for old in self._set if (old.name, old.node) != (fault.name, fault.node)] + [fault]
        self._save()

    def clear(self, name: str = "") -> None:
        """Clear one fault, or all."""
        if name and name not in KNOWN:
            raise UsageError(f"no such fault: {name}", "known faults: " + ", ".join(KNOWN))
        self._set = [fault for fault in self._set if name and fault.name != name]
        self._save()

    def list(self) -> "list[Fault]":
        return [dataclasses.replace(fault) for fault in self._set]

    def strikes(self, name: str, node: int | None = None) -> Fault | None:
        """The fault, if it is set for this node and has not been used up; uses it once."""
        with self._lock:
            for fault in self._set:
                if fault.name == name and fault.node in (None, node) and fault.count != 0:
                    if fault.count is not None:
                        fault.count -= 1
                        self._save()
                    return fault
        return None

    def _save(self) -> None:
        self._path.write_text(json.dumps([dataclasses.asdict(fault) for fault in self._set], indent=1))
