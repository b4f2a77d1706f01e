"""What `udi inspect` shows of the audit of an image: a line for the whole, then the findings, the worst first."""

from __future__ import annotations

import time

from gateway.wire.messages import Audit
from udi.audit_report import Finding
from udiroot.errors import counted, printable

_MOST = 200
"""Findings that are shown to a person; `--json` has all that are kept."""
_LEVELS = {"warn": "warning", "refuse": "refused for new jobs"}


def audit_lines(audit: Audit) -> list[str]:
    """The lines, each printable."""
    lines = [f"audit: {_LEVELS.get(audit.level, audit.level)}: {audit.words}"]
    if audit.time:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(audit.time))
        feed = f", feed {printable(audit.feed)}" if audit.feed else ""
        by = f" by {printable(audit.scanner)}" if audit.scanner else ""
        lines.append(f"scanned: {when}{by}{feed}, {counted(audit.packages, 'package')}")
    lines += [f"not scanned: {printable(text)}" for text in audit.unread]
    lines += [f"finding: {_line(finding)}" for finding in audit.findings[:_MOST]]
    if len(audit.findings) > _MOST:
        lines.append(f"and {len(audit.findings) - _MOST} more (udi inspect --json)")
    return lines


def _line(finding: Finding) -> str:
    words = [finding.severity, finding.id, finding.package, finding.version]
    words += ["fixed in", finding.fixed] if finding.fixed else []
    words += [f"- {finding.summary}"] if finding.summary else []
    words += [finding.url] if finding.url else []
    return " ".join(printable(word) for word in words if word)
