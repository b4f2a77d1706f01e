"""Node states by `xtprocadmin` (cray-reference 5.2): reading them, and setting nodes `admindown` or `up`.

`-k` without `-n` would hit every node of the machine (N22), so no list of nodes means that nothing is run. What a
successful set prints, and its exit status, is not known (N25): the states are read back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from alps.nids import folded
from udi.command import Deadline, Finished, run
from udi.config import SiteConfig
from udiroot.errors import UpstreamFailed

_NODES_A_CALL = 4000
"""A single argument may have 128 KiB."""
_COLUMNS = ("NID", "(HEX)", "NODENAME", "TYPE", "STATUS", "MODE")


@dataclass(frozen=True)
class NodeState:
    """A node as the service database has it: `status` up, down, admindown, suspect, …; `mode` batch, interactive."""

    nid: int
    cname: str
    status: str
    mode: str


def read_states(site: SiteConfig, nids: Sequence[int], deadline: Deadline) -> dict[int, NodeState]:
    """The states of the nodes; one that the tool does not list is absent. Raises UpstreamFailed, TimedOut."""
    states: dict[int, NodeState] = {}
    for part in _parts(nids):
        done = _xtprocadmin(site, ["-n", part], deadline)
        states |= parse_states(done.stdout.decode("utf-8", "replace"))
    wanted = set(nids)
    return {nid: state for nid, state in states.items() if nid in wanted}


def set_state(site: SiteConfig, nids: Sequence[int], status: Literal["admindown", "up"], deadline: Deadline) -> None:
    """Set the nodes' status and make sure of it. Raises UpstreamFailed naming the nodes that did not take it."""
    if not nids:
        return
    for part in _parts(nids):
        _xtprocadmin(site, ["-k", "s", status, "-n", part], deadline)
    states = read_states(site, nids, deadline)
    wrong = [nid for nid in nids if nid not in states or states[nid].status != status]
    if wrong:
        raise UpstreamFailed(f"{folded(wrong)} did not become {status}", f"see {site.alps.xtprocadmin}")


def parse_states(text: str) -> dict[int, NodeState]:
    """The rows of the table, by its heading where there is one; other lines are noise."""
    columns = {name: place for place, name in enumerate(_COLUMNS)}
    states = {}
    for line in text.splitlines():
        fields = line.split()
        if fields[:1] == ["NID"] and "STATUS" in fields:
            columns = {name: place for place, name in enumerate(fields)}
            continue
        if len(fields) < len(columns) or not (fields[0].isascii() and fields[0].isdecimal()):
            continue
        cell = {name: fields[place] for name, place in columns.items()}
        nid = int(fields[0])
        states[nid] = NodeState(nid, cell.get("NODENAME", ""), cell["STATUS"], cell.get("MODE", ""))
    return states


def _parts(nids: Sequence[int]) -> list[str]:
    ordered = sorted(set(nids))
    return [",".join(map(str, ordered[n : n + _NODES_A_CALL])) for n in range(0, len(ordered), _NODES_A_CALL)]


def _xtprocadmin(site: SiteConfig, arguments: list[str], deadline: Deadline) -> Finished:
    seconds = deadline.left(site.alps.command_deadline)
    return run([site.alps.xtprocadmin, *arguments], seconds=seconds).require_success()
