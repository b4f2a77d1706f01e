"""What a machine can do for the software, whichever machine it is: the seam between jobs and `alps/`, `clusters/`, ….

A machine knows the nodes of a job, how to run a command of ours on nodes, how to take nodes out of service and back,
and their states. It knows no workload manager: what that one knows of a job's hosts is handed in. How the reports of
nodes are read and judged is in `udi.fanout`, the same for all machines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from udi.command import Deadline
from udi.nodes import Node, NodeSlots
from udi.slotted import Slotted, put
from udi.values import Frozen

if TYPE_CHECKING:
    from udi.fanout import FanOutResult
    from udi.sitefiles import Renderer, SiteFile

IN_SERVICE, OUT_OF_SERVICE = "up", "admindown"
"""Statuses of a node that our own software sets; a machine may show others (`down`, `suspect`)."""


class Host(Slotted):
    """A host that the workload manager gave a job, in its own spelling, and the slots that the job has there."""

    __slots__ = ("name", "slots")
    name: str
    slots: int

    def __init__(self, name: str, slots: int) -> None:
        put(self, "name", name)
        put(self, "slots", slots)


class Allocation(Frozen):
    """A job's nodes in order, each once. `id` is what the machine itself calls the allocation, where it has such a
    name (of ALPS, the reservation's id)."""

    nodes: tuple[NodeSlots, ...]
    id: str = ""


class NodeState(Slotted):
    """A node as the machine has it: `status` is up, down, admindown, suspect, …"""

    __slots__ = ("node", "status")
    node: Node
    status: str

    def __init__(self, node: Node, status: str) -> None:
        put(self, "node", node)
        put(self, "status", status)


class NodeNames(Protocol):
    """What a plan needs to know of nodes."""

    def identity(self, node: Node) -> str:
        """What the node calls itself in a report and in the kernel's tables."""

    def address(self, node: Node) -> str:
        """The node's address on the network between nodes, for the private sshd. Raises ConfigError, UpstreamFailed."""


class Machine(NodeNames, Protocol):
    """One machine, as its configuration describes it."""

    @property
    def name(self) -> str:
        """The name of its table of the configuration."""

    @property
    def fanout_deadline(self) -> int:
        """Seconds that a fan-out to all nodes of a job may take."""

    @property
    def command_deadline(self) -> int:
        """Seconds that one other question to the machine may take."""

    def nodes_of(self, job: str, hosts: Sequence[Host], deadline: Deadline, allocation: str = "") -> Allocation:
        """The nodes of a job, which the workload manager says is on `hosts`; `allocation` is what the machine calls
        them, where the workload manager knows that.

        An allocation without nodes means that the job has no compute node. Raises UpstreamFailed (or its TimedOut)
        where it should have some and the machine does not know them.
        """

    def run(
        self, nodes: Sequence[Node], command_line: str, nonce: str, deadline: Deadline, directory: str = ""
    ) -> FanOutResult:
        """Run a shell line of `udi.nodecommand` on each node, until all have answered or the time is over.

        `directory`, root's alone, may hold files for that time. Raises UpstreamFailed when nothing can have run on any
        node; whatever else goes wrong, the result tells.
        """

    def take_out_of_service(self, nodes: Sequence[Node], reasons: Mapping[Node, str], deadline: Deadline) -> None:
        """Take nodes out of service and make sure of it. Raises UpstreamFailed, TimedOut."""

    def bring_into_service(self, nodes: Sequence[Node], deadline: Deadline) -> None:
        """Bring nodes back and make sure of it. Raises UpstreamFailed, TimedOut."""

    def states(self, nodes: Sequence[Node], deadline: Deadline) -> dict[Node, NodeState]:
        """The nodes' states; one that the machine does not know is absent. Raises UpstreamFailed, TimedOut."""

    def parse_nodes(self, text: str) -> tuple[Node, ...]:
        """The nodes that an operator names. Raises UsageError."""

    def identity_file(self) -> str:
        """The file in which a node reads its identity; empty where its host name is it."""

    def programs(self) -> Mapping[str, str]:
        """The programs of this host that the machine needs: key of the configuration → path."""

    def site_files(self, render: Renderer) -> Sequence[SiteFile]:
        """The files that this machine needs installed."""
