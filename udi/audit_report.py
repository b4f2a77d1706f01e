"""The report on one image: what a scanner found in it, and by what it knew.

A file of lines beside the image, each a JSON object: first the summary, then one finding each, the worst first. Who has
to know only whether a job may start reads one line.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from udi.values import Frozen, as_dict, field, fields, replace
from udiroot.errors import ImageInvalid, printable

SEVERITIES = ("unknown", "negligible", "low", "medium", "high", "critical")
"""From the least to the worst. What a scanner calls otherwise is unknown."""
MAX_SUMMARY = 64 << 10
"""Bytes of the first line."""
MAX_BYTES = 16 << 20
MAX_FINDINGS = 10_000
"""Findings that are kept; all are counted."""
MAX_TEXT = 1000
"""Characters of one text."""


class Finding(Frozen, kw_only=True):
    """What is wrong with one package. `fixed` is the version that is not affected, where there is one."""

    id: str
    package: str = ""
    version: str = ""
    severity: str = "unknown"
    fixed: str = ""
    summary: str = ""
    url: str = ""


class Counts(Frozen, kw_only=True):
    """How many findings there are of each severity."""

    critical: int = 0
    high: int = 0
    medium: int = 0
    low: int = 0
    negligible: int = 0
    unknown: int = 0


class Summary(Frozen, kw_only=True):
    """What a report comes to.

    `time` is when it was made, in seconds since the epoch. `error` is why there could be no scan. `basis` is the digest
    of the scanner's words and its feed's files: with another one, a scan might find something else. `unread` says what
    of the image could not be read for the inventory, one sentence each.
    """

    id: str
    time: int
    scanner: str = ""
    feed: str = ""
    basis: str = ""
    error: str = ""
    network: bool = False
    packages: int = 0
    unread: tuple[str, ...] = ()
    counts: Counts = field(default_factory=Counts)
    worst: Finding | None = None

    @property
    def is_scanned(self) -> bool:
        return not self.error


class Report(Frozen, kw_only=True):
    """A summary, and the findings, the worst first."""

    summary: Summary
    findings: tuple[Finding, ...] = ()

    @classmethod
    def of(cls, summary: Summary, findings: Iterable[Finding]) -> Report:
        """The report with these findings, counted and in order."""
        ordered = sorted(findings, key=_order)
        numbers = dict.fromkeys(SEVERITIES, 0)
        for finding in ordered:
            numbers[finding.severity] += 1
        worst = ordered[0] if ordered else None
        counted = replace(summary, counts=Counts(**numbers), worst=worst)
        return cls(summary=counted, findings=tuple(ordered[:MAX_FINDINGS]))

    def to_text(self) -> str:
        """The file's text."""
        lines = [_line(self.summary)]
        size = len(lines[0])
        for finding in self.findings:
            line = _line(finding)
            size += len(line)
            if size > MAX_BYTES:
                break
            lines.append(line)
        return "".join(lines)

    @classmethod
    def from_text(cls, text: bytes) -> Report:
        """What `to_text` wrote. Raises ImageInvalid."""
        first, *lines = text.splitlines() or [b""]
        findings = tuple(_read(Finding, _object(line), "a finding") for line in lines)
        return cls(summary=read_summary(first), findings=findings)


def read_summary(line: bytes) -> Summary:
    """The first line of a report. Raises ImageInvalid for all that `Report.to_text` does not write."""
    document = _object(line)
    counts = _read(Counts, document.pop("counts", {}), "its counts")
    worst = document.pop("worst", None)
    unread = document.pop("unread", [])
    if not isinstance(unread, list) or not all(type(text) is str for text in unread):
        raise ImageInvalid("the report on an image is damaged: unread", "udi-gateway rescan makes it anew")
    found: Summary = _read(Summary, document, "its summary")
    return replace(
        found,
        counts=counts,
        unread=tuple(unread),
        worst=_read(Finding, worst, "its worst finding") if worst is not None else None,
    )


def _order(finding: Finding) -> tuple[int, str, str]:
    return -SEVERITIES.index(finding.severity), finding.id, finding.package


def _line(value: Summary | Finding) -> str:
    return json.dumps(as_dict(value), sort_keys=True) + "\n"


def _object(line: bytes) -> dict[str, Any]:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ImageInvalid(f"the report on an image is not JSON: {printable(error)}") from error
    if not isinstance(document, dict):
        raise ImageInvalid("the report on an image is not a JSON object")
    return document


def _read(kind: Any, document: Any, what: str) -> Any:
    """Fields of plain types, each of exactly its type."""
    kinds = {"str": str, "int": int, "bool": bool}
    known = {spec.name: kinds.get(spec.type) for spec in fields(kind)}
    if not isinstance(document, dict) or any(type(value) is not known.get(key) for key, value in document.items()):
        raise ImageInvalid(f"the report on an image is damaged: {what}", "udi-gateway rescan makes it anew")
    if document.get("severity", SEVERITIES[0]) not in SEVERITIES:
        raise ImageInvalid(f"the report on an image is damaged: severity of {what}", "udi-gateway rescan makes it anew")
    try:
        return kind(**document)
    except TypeError as error:
        raise ImageInvalid(f"the report on an image is damaged: {what}", "udi-gateway rescan makes it anew") from error
