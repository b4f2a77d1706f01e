"""What became of a command that was run on many nodes: read from the nodes' own lines and nothing else.

A machine's own words of success, exit codes and counts say too little (cray-reference X8 to X14), and a user can print
any of them. A line counts only with this fan-out's nonce and from a node that was asked. Each node is in the end:

- *reported*: the software ran there and made its report (`udiroot.report`);
- *not started*: the node's shell reported that nothing of the software ran (`udi.nodecommand`), or the software itself
  that it did not know which node it is on, which it finds out before anything else;
- *no answer*: nobody knows what is on the node.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Self

from udi.nodecommand import EXIT_MARK, NOT_STARTED, START_SIGN, STARTED
from udi.nodes import Node
from udi.values import Frozen, field
from udiroot import says
from udiroot.errors import printable
from udiroot.report import UNKNOWN_NODE, NodeReport

_MAX_OTHER_LINES = 200
_NUMBER = re.compile(r"[0-9]+")
_MAX_WORDS = 300
_UNKNOWN = ("-", UNKNOWN_NODE)


class FanOutResult(Frozen):
    """What became of a fan-out. Every node that was asked is in `reports`, in `not_started` or in `silent`."""

    asked: tuple[Node, ...]
    reports: Mapping[Node, NodeReport] = field(default_factory=dict)
    cause: str = ""
    """Why the silent nodes were not waited for any longer."""
    causes: Mapping[Node, str] = field(default_factory=dict)
    """The same for single nodes, where the machine knows it."""
    not_started: Mapping[Node, str] = field(default_factory=dict)
    """The nodes on which nothing of the software ran, and why, in the node's own words."""
    other_lines: tuple[str, ...] = ()
    """What was printed beside reports, by the nodes or by what reaches them: of lines that differ in numbers only, the
    first. The first 200 of these."""

    said: bytes = b""
    """What a command that was run in a root printed (`udiroot.says`)."""

    @property
    def silent(self) -> tuple[Node, ...]:
        return tuple(node for node in self.asked if node not in self.reports and node not in self.not_started)

    @property
    def failed(self) -> Mapping[Node, NodeReport]:
        return {node: self.reports[node] for node in self.asked if node in self.reports and not self.reports[node].ok}

    @property
    def ok(self) -> bool:
        return not self.silent and not self.not_started and not self.failed

    def errors(self) -> dict[Node, str]:
        """Each node that did not succeed, and why."""
        silence = {node: f"no answer: {self.causes.get(node, self.cause)}" for node in self.silent}
        refusal = {node: f"could not start: {cause}" for node, cause in self.not_started.items()}
        failure = {node: report.words or "failed without a message" for node, report in self.failed.items()}
        return silence | refusal | failure


class _Exit(Frozen):
    """What a node's shell reported of the end of our command there."""

    node: str
    code: str
    started: bool
    words: str

    @classmethod
    def parse(cls, line: str, nonce: str) -> Self | None:
        fields = line.strip().split(" ", 5)
        if len(fields) < 5 or fields[:2] != [EXIT_MARK, nonce] or fields[4] not in (STARTED, NOT_STARTED):
            return None
        node, code, state = fields[2:5]
        if not (code.isascii() and code.isdecimal() and len(code) < 6):
            return None
        return cls(node, code, state == STARTED, fields[5] if len(fields) > 5 else "")

    def __str__(self) -> str:
        words = printable(self.words.replace(START_SIGN, "", 1).strip(), _MAX_WORDS)
        code = int(self.code)
        what = f"exit code {code} (signal {code - 128})" if 128 < code < 193 else f"exit code {code}"
        return f"{what}: {words}" if words else f"{what} without a message"


class Answers:
    """The nodes' lines as they come in. A node that reports both ok and failed has failed; a report counts more than
    how the command ended."""

    def __init__(self, asked: Iterable[Node], identity: Callable[[Node], str], nonce: str) -> None:
        self.asked = tuple(sorted(set(asked)))
        self._identity = identity
        self._nodes = {identity(node): node for node in self.asked}
        self._nonce = nonce
        self._other: dict[str, str] = {}
        self._ends: dict[Node, _Exit] = {}
        self._nameless: list[str] = []
        self._texts: dict[str, str] = {}
        self.reports: dict[Node, NodeReport] = {}
        self._answered = 0
        """How many nodes are in `reports` or `_ends`."""
        self._said: list[bytes] = []

    @property
    def complete(self) -> bool:
        """Whether every node has made a report, or can make none any more."""
        return self._answered == len(self.asked)

    def read(self, line: str, source: Node | None = None) -> bool:
        """Take in one line of output; True once nothing more can come.

        Where the machine knows the `source` of a line, one about another node does not count; that node's own may
        have its name with or without the domain.
        """
        if line.startswith(says.MARK):
            if len(self._said) * says.CHUNK < 2 * says.MOST * len(self.asked):
                self._said.append(says.said(line, self._nonce) or b"")
            return self.complete
        report = NodeReport.parse(line, self._nonce)
        if report is not None:
            self._take_report(report, source)
        elif (end := _Exit.parse(line, self._nonce)) is not None:
            self._take_end(end, source)
        elif len(self._other) < _MAX_OTHER_LINES and (words := printable(line.strip(), _MAX_WORDS)):
            self._other.setdefault(_NUMBER.sub("#", words), words)
        return self.complete

    def _take_report(self, report: NodeReport, source: Node | None) -> None:
        node = self._node(report.node, source)
        if node is not None:
            earlier = self.reports.get(node)
            if earlier is None or earlier.ok:
                self._answered += earlier is None and node not in self._ends
                report.words = self._texts.setdefault(report.words, report.words)  # most say the same
                self.reports[node] = report
        elif report.node == UNKNOWN_NODE and not report.ok:
            self._take_end(_Exit(UNKNOWN_NODE, str(report.code), False, report.words), source)

    def _take_end(self, end: _Exit, source: Node | None) -> None:
        node = source if source is not None and end.node in _UNKNOWN else self._node(end.node, source)
        if node is not None and self._identity(node) in self._nodes:
            self._answered += node not in self.reports and node not in self._ends
            self._ends.setdefault(node, end)
        elif end.node in _UNKNOWN and not end.started:
            self._nameless.append(str(end))

    def _node(self, reported: str, source: Node | None) -> Node | None:
        """The node that a line is about, or None where it does not count."""
        if source is None:
            return self._nodes.get(reported)
        known = self._identity(source)
        short, long = sorted((reported, known), key=len)
        same = short == long or ("." not in short and long.startswith(f"{short}."))
        return self._nodes.get(known) if same else None

    def result(self, cause: str, causes: Mapping[Node, str] | None = None) -> FanOutResult:
        """What became of the fan-out; `cause` and `causes` are why the silent nodes were not waited for any longer."""
        ends = {node: end for node, end in self._ends.items() if node not in self.reports}
        not_started = {node: str(end) for node, end in ends.items() if not end.started}
        died = {node: str(end) for node, end in ends.items() if end.started}
        others = [node for node in self.asked if node not in self.reports and node not in ends]
        if others and len(self._nameless) >= len(others):
            # As many lines without a name as nodes without a line: it is they.
            not_started |= dict(zip(others, self._nameless, strict=False))
        every = {**(causes or {}), **died}
        other, said = tuple(self._other.values()), b"".join(self._said)
        return FanOutResult(self.asked, self.reports, cause, every, not_started, other, said)
