"""Cray's Node Health Checker: the site's tests on every node after an application and after a reservation.

It reads `nodehealth.conf` again at each run (cray-reference N1 to N9). A node where a test with action Admindown fails,
or that cannot be contacted, is taken out of service.
"""

import re
import subprocess
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from udiroot.errors import NotFound
from xcsim.node import ComputeNode
from xcsim.node_states import NodeStates

CONFIGURATION = "/etc/opt/cray/nodehealth/nodehealth.conf"
LOG = "/var/log/xtcheckhealth_log"


@dataclass(frozen=True)
class HealthTest:
    """One stanza of the configuration."""

    command: str
    action: str
    seconds: float
    sets: frozenset[str]


@dataclass
class _Findings:
    """What one run found on one node."""

    failed: list[HealthTest] = field(default_factory=list)
    output: list[str] = field(default_factory=list)
    unreachable: bool = False


def parse(text: str) -> list[HealthTest]:
    """The plugin stanzas. Names are not case-sensitive; unknown keys and other tests are ignored (N3 to N5)."""
    tests = []
    stanza: dict[str, str] | None = None
    stanzas: list[dict[str, str]] = []
    for raw in text.splitlines():
        line = raw.split("#", 1)[0].strip()
        if re.fullmatch(r"\[.*\]", line):
            stanza = {"": line[1:-1].strip().lower()}
            stanzas.append(stanza)
        elif stanza is not None and ":" in line:
            name, _, value = line.partition(":")
            stanza[name.strip().lower()] = value.strip()
    for one in stanzas:
        if one[""].startswith("plugin") and one.get("command"):
            sets = frozenset(re.split(r"[\s,]+", one.get("sets", "application").lower()))
            seconds = float(one.get("timeout", "60"))
            tests.append(HealthTest(one["command"], one.get("action", "log").lower(), seconds, sets))
    return tests


class NodeHealth:
    """Runs the configured tests and acts on what they find."""

    def __init__(self, nodes: dict[int, ComputeNode], states: NodeStates, lock: "threading.RLock") -> None:
        self._nodes = nodes
        self._states = states
        self._lock = lock

    def check(self, which: str, number: int, nids: Iterable[int]) -> None:
        """Run all tests of a set (`application` or `reservation`) on these nodes in parallel, to completion."""
        try:
            tests = [test for test in parse(Path(CONFIGURATION).read_text()) if which in test.sets]
        except FileNotFoundError:
            tests = []
        threads = [threading.Thread(target=self._node, args=(number, nid, tests), daemon=True) for nid in nids]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _node(self, number: int, nid: int, tests: list[HealthTest]) -> None:
        found = _Findings()
        for test in tests:
            try:
                done = self._nodes[nid].run(["/bin/sh", "-c", test.command], timeout=test.seconds)
            except NotFound:
                found.unreachable = True
                break
            except subprocess.TimeoutExpired:
                found.failed.append(test)
                found.output.append(f"timed out after {test.seconds:g} s")
                continue
            found.output += [line for line in (done.stdout + done.stderr).splitlines() if line]
            if done.returncode != 0:
                found.failed.append(test)
        if not self._nodes[nid].running:
            found.unreachable = True
        if found.failed or found.unreachable:
            self._act(number, nid, found)

    def _act(self, number: int, nid: int, found: _Findings) -> None:
        name = self._nodes[nid].name
        head = f"<node_health:3.1> APID:{number} (xtnhc) FAILURES:"
        lines = []
        if found.unreachable:
            lines.append(f"{head} Could not contact {name}")
        if found.failed:
            lines.append(f"{head} The following tests have failed in normal mode:")
            lines += [f"{head} ({test.action.capitalize()}) Plugin {test.command}" for test in found.failed]
            lines += [f"{head} {name}: {line}" for line in found.output]
            lines.append(f"{head} End of list of {len(found.failed)} failed test(s)")
        down = found.unreachable or any(test.action != "log" for test in found.failed)
        with self._lock:
            if down:
                self._states.set_status([nid], "admindown")
                lines.append(f"<node_health:3.1> APID:{number} (xtnhc) {name} set to admindown")
            stamp = time.strftime("%b %d %H:%M:%S")
            with open(LOG, "a") as log:
                log.writelines(f"{stamp} {line}\n" for line in lines)
