"""What became of a command that was run on many nodes: read from the nodes' own reports and nothing else.

A machine's own words of success, exit codes and counts say too little (cray-reference X8 to X14), and a user can print
any of them. A report counts only with this fan-out's nonce and from a node that was asked.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from udi.nodes import Node
from udiroot.errors import printable
from udiroot.report import NodeReport

_log = logging.getLogger("udi.fanout")
_MAX_LOGGED_BYTES = 256 << 10


@dataclass(frozen=True)
class FanOutResult:
    """What became of a fan-out. Every node that was asked is in `reports` or in `silent`."""

    asked: tuple[Node, ...]
    reports: Mapping[Node, NodeReport] = field(default_factory=dict)
    cause: str = ""
    """Why the silent nodes were not waited for any longer."""
    causes: Mapping[Node, str] = field(default_factory=dict)
    """The same for single nodes, where the machine knows it."""

    @property
    def silent(self) -> tuple[Node, ...]:
        return tuple(node for node in self.asked if node not in self.reports)

    @property
    def failed(self) -> Mapping[Node, NodeReport]:
        return {node: self.reports[node] for node in self.asked if node in self.reports and not self.reports[node].ok}

    @property
    def ok(self) -> bool:
        return not self.silent and not self.failed

    def errors(self) -> dict[Node, str]:
        """Each node that did not succeed, and why."""
        silence = {node: f"no answer: {self.causes.get(node, self.cause)}" for node in self.silent}
        return silence | {node: report.words or "failed without a message" for node, report in self.failed.items()}


class Answers:
    """The reports as they come in. A node that reports both ok and failed has failed."""

    def __init__(self, asked: Iterable[Node], identity: Callable[[Node], str], nonce: str) -> None:
        self.asked = tuple(sorted(set(asked)))
        self._identity = identity
        self._nodes = {identity(node): node for node in self.asked}
        self._nonce = nonce
        self._logged = 0
        self.reports: dict[Node, NodeReport] = {}

    @property
    def complete(self) -> bool:
        return len(self.reports) == len(self.asked)

    def read(self, line: str, source: Node | None = None) -> bool:
        """Take in one line of output; True once every node has answered.

        Where the machine knows the `source` of a line, a report for another node does not count; that node's own may
        have its name with or without the domain.
        """
        self._keep(line)
        report = NodeReport.parse(line, self._nonce)
        node = self._node(report.node, source) if report else None
        if report is not None and node is not None:
            earlier = self.reports.get(node)
            if earlier is None or earlier.ok:
                self.reports[node] = report
        return self.complete

    def _node(self, reported: str, source: Node | None) -> Node | None:
        """The node that a report is of, or None where it does not count."""
        if source is None:
            return self._nodes.get(reported)
        known = self._identity(source)
        short, long = sorted((reported, known), key=len)
        same = short == long or ("." not in short and long.startswith(f"{short}."))
        return self._nodes.get(known) if same else None

    def result(self, cause: str, causes: Mapping[Node, str] | None = None) -> FanOutResult:
        """What became of the fan-out; `cause` and `causes` are why the silent nodes were not waited for any longer."""
        return FanOutResult(self.asked, self.reports, cause, causes or {})

    def _keep(self, line: str) -> None:
        if self._logged > _MAX_LOGGED_BYTES:
            return
        self._logged += len(line)
        _log.debug("%s", printable(line.rstrip(), 600))
        if self._logged > _MAX_LOGGED_BYTES:
            _log.warning("the nodes print more than is logged")
