"""What a node's report of a set-up means: the error, by its exit code, and so who must act; or what the user should
know."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from udiroot.errors import SetupFailed, TeardownIncomplete, UdiError
from udiroot.report import NodeReport

EVERYWHERE = "on all its nodes: "
"""How the hint begins where several nodes were asked, and none did it: then no single node is at fault."""
LEFT_IN_SERVICE = "its nodes were left in service: "
"""The same where they were not even cleaned."""
_log = logging.getLogger("udi.jobs")
_USERS = {kind.exit_code: kind for kind in UdiError.__subclasses__() if kind.owner == "user"}


def users_error(report: NodeReport) -> type[UdiError] | None:
    """The error that a report means where the job's user must act; None for any other."""
    return _USERS.get(report.code)


def error_of(report: NodeReport) -> UdiError:
    """The error of one report."""
    if report.code == TeardownIncomplete.exit_code:
        return TeardownIncomplete(report.words, jobs=report.jobs, left=report.left)
    return (users_error(report) or SetupFailed)(report.words or "failed without a message")


def with_warning(notice: str, reports: Iterable[NodeReport]) -> str:
    """What the user should know, with the warning of the nodes, which is the same on each."""
    warning = next((f"warning: {report.words}" for report in reports if report.warns), "")
    if warning:
        _log.info("%s", warning)
    return "; ".join(filter(None, (notice, warning)))
