"""Running one command on many nodes by `xtxqtcmd`, and what each of them answered.

Judged by nothing but the nodes' own reports with this fan-out's nonce: `(complete)` lines, exit status and counts say
too little (cray-reference X8 to X14), and a user can print any of them.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from alps.nids import node_name
from udi.command import Deadline, Late, run
from udi.config import SiteConfig
from udiroot.errors import UpstreamFailed, printable
from udiroot.report import NodeReport

_log = logging.getLogger("udi.fanout")
_MAX_LOGGED_BYTES = 256 << 10


@dataclass(frozen=True)
class FanOutResult:
    """What became of a fan-out. Every node that was asked is in `reports` or in `silent`."""

    asked: tuple[int, ...]
    reports: Mapping[int, NodeReport] = field(default_factory=dict)
    cause: str = ""
    """Why the silent nodes were not waited for any longer."""

    @property
    def silent(self) -> tuple[int, ...]:
        return tuple(nid for nid in self.asked if nid not in self.reports)

    @property
    def failed(self) -> tuple[NodeReport, ...]:
        return tuple(self.reports[nid] for nid in self.asked if nid in self.reports and not self.reports[nid].ok)

    @property
    def ok(self) -> bool:
        return not self.silent and not self.failed

    def troubles(self) -> dict[int, str]:
        """Each node that is not well, and why."""
        silence = dict.fromkeys(self.silent, f"no answer: {self.cause}")
        return silence | {report.nid: report.words or "failed without a word" for report in self.failed}


class _Answers:
    """The reports as they come. A node that says both ok and failed has failed; strangers are not listened to."""

    def __init__(self, asked: tuple[int, ...], nonce: str) -> None:
        self._asked = frozenset(asked)
        self._nonce = nonce
        self._logged = 0
        self.reports: dict[int, NodeReport] = {}

    def hear(self, line: str) -> bool:
        """Take in one line of output; True once every node has answered."""
        self._keep(line)
        report = NodeReport.parse(line, self._nonce)
        if report is not None and report.nid in self._asked:
            earlier = self.reports.get(report.nid)
            if earlier is None or earlier.ok:
                self.reports[report.nid] = report
        return len(self.reports) == len(self._asked)

    def _keep(self, line: str) -> None:
        if self._logged > _MAX_LOGGED_BYTES:
            return
        self._logged += len(line)
        _log.debug("%s", printable(line.rstrip(), 600))
        if self._logged > _MAX_LOGGED_BYTES:
            _log.warning("the nodes print more than is kept here")


def fan_out(
    site: SiteConfig, nids: Sequence[int], command_line: str, nonce: str, deadline: Deadline, folder: str = ""
) -> FanOutResult:
    """Run `command_line`, made by `udi.nodecommand`, on each node; at most as long as the site's fan-out may take.

    Ends as soon as all have answered. `folder`, root's alone, gets the node list for that time. Raises UpstreamFailed
    when the tool is not there, so that nothing can have happened on any node; whatever else goes wrong, the result
    tells.
    """
    asked = tuple(sorted(set(nids)))
    if not os.access(site.alps.xtxqtcmd, os.X_OK):
        raise UpstreamFailed(f"{site.alps.xtxqtcmd} is not an executable program", "see alps.xtxqtcmd in udi.toml")
    answers = _Answers(asked, nonce)
    seconds = deadline.left(site.alps.fanout_deadline)
    cause = ""
    with _node_list(asked, folder) as path:
        try:
            done = run([site.alps.xtxqtcmd, path, command_line], seconds=seconds, on_line=answers.hear)
            cause = f"xtxqtcmd ended with {done.exit_code}"
        except Late:
            cause = f"not within {seconds:.0f} seconds"
        except UpstreamFailed as error:
            cause = error.message
    return FanOutResult(asked, answers.reports, cause)


@contextmanager
def _node_list(nids: tuple[int, ...], folder: str) -> Iterator[str]:
    """A file as CCM makes it (X3): one name a line, unique, sorted, 0600."""
    descriptor, path = tempfile.mkstemp(prefix="nodes.", dir=folder or None)
    try:
        with os.fdopen(descriptor, "w") as stream:
            stream.writelines(f"{node_name(nid)}\n" for nid in nids)
        yield path
    finally:
        os.unlink(path)
