"""Node states by `xtprocadmin` (cray-reference 5.2): reading them, and setting nodes `admindown` or `up`.

`-k` without `-n` would hit every node of the machine (N22), so without nodes nothing is run. What a successful set
prints, and its exit status, is not known (N25): the states are read back.
"""

from __future__ import annotations

from collections.abc import Sequence

from alps.numbers import is_number
from alps.settings import AlpsConfig
from udi.command import Deadline, Finished, run
from udi.nodes import Node, in_brief, numbered
from udi.platform import NodeState
from udi.values import Frozen
from udiroot.errors import UpstreamFailed

_NODES_A_CALL = 4000
"""A single argument may have 128 KiB."""
_COLUMNS = ("NID", "(HEX)", "NODENAME", "TYPE", "STATUS", "MODE")


class Row(Frozen):
    """A node as the service database has it: `status` up, down, admindown, suspect, …; `mode` batch, interactive."""

    nid: int
    cname: str
    status: str
    mode: str


def read_states(settings: AlpsConfig, nodes: Sequence[Node], deadline: Deadline) -> dict[Node, NodeState]:
    """The states of the nodes; one that the tool does not list is absent. Raises UpstreamFailed, TimedOut."""
    rows: dict[int, Row] = {}
    for part in _parts(nodes):
        done = _xtprocadmin(settings, ["-n", part], deadline)
        rows |= parse_states(done.stdout.decode("utf-8", "replace"))
    wanted = set(nodes)
    found = (NodeState(numbered(nid), row.status) for nid, row in rows.items())
    return {state.node: state for state in found if state.node in wanted}


def set_state(settings: AlpsConfig, nodes: Sequence[Node], status: str, deadline: Deadline) -> None:
    """Set the nodes' status (`admindown` or `up`) and read it back. Raises UpstreamFailed naming those that did not
    change."""
    if not nodes:
        return
    for part in _parts(nodes):
        _xtprocadmin(settings, ["-k", "s", status, "-n", part], deadline)
    states = read_states(settings, nodes, deadline)
    wrong = [node for node in nodes if node not in states or states[node].status != status]
    if wrong:
        raise UpstreamFailed(f"{in_brief(wrong)} did not become {status}", f"see {settings.xtprocadmin}")


def parse_states(text: str) -> dict[int, Row]:
    """The rows of the table by nid, columns by its heading where there is one; other lines are noise."""
    columns = {name: index for index, name in enumerate(_COLUMNS)}
    rows = {}
    for line in text.splitlines():
        fields = line.split()
        if fields[:1] == ["NID"] and "STATUS" in fields:
            columns = {name: index for index, name in enumerate(fields)}
            continue
        if len(fields) < len(columns) or not is_number(fields[0]):
            continue
        cell = {name: fields[index] for name, index in columns.items()}
        nid = int(fields[0])
        rows[nid] = Row(nid, cell.get("NODENAME", ""), cell["STATUS"], cell.get("MODE", ""))
    return rows


def _parts(nodes: Sequence[Node]) -> list[str]:
    nids = sorted({node.number for node in nodes if node.number is not None})
    return [",".join(map(str, nids[n : n + _NODES_A_CALL])) for n in range(0, len(nids), _NODES_A_CALL)]


def _xtprocadmin(settings: AlpsConfig, arguments: list[str], deadline: Deadline) -> Finished:
    seconds = deadline.left(settings.command_deadline)
    return run([settings.xtprocadmin, *arguments], seconds=seconds).require_success()
