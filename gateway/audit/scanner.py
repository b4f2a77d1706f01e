"""The site's scanner: a command that reads the inventory of an image and writes what it finds, both JSON.

    {"scanner": "name 1.2", "feed": "2026-11-20",
     "findings": [{"id": "CVE-2026-1", "package": "openssl", "version": "3.0.1", "severity": "critical",
                   "fixed": "3.0.2", "summary": "…", "url": "https://…"}]}

Only `findings`, and `id` in each, must be there; exit code 0 says that it is complete. Whatever else it does, or fails
to do, is the reason in a report without a scan.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import sys
import time
from collections.abc import Iterator

from gateway.audit.confined import CONFINED
from gateway.audit.inventory import read_rest
from udi.audit import AuditConfig
from udi.audit_report import MAX_TEXT, SEVERITIES, Finding, Report, Summary
from udi.command import Finished, run
from udi.jsonvalue import JsonValue
from udi.oserrors import reason
from udiroot.errors import UdiError, UpstreamFailed, printable

_MAX_OUTPUT = 32 << 20
_MAX_FEED_FILES = 100_000
_MAX_REASON = 300


def scan(settings: AuditConfig, inventory: str, image_id: str, directory: str) -> Report:
    """The report on the image whose inventory is in this file. It raises nothing: why there is no scan is a report.

    `directory` has room for the inventory as long as the scanner reads it.
    """
    summary = Summary(id=image_id, time=int(time.time()))
    try:
        known = basis(settings)
        rest = read_rest(inventory, settings.max_inventory_bytes)
        summary = dataclasses.replace(summary, packages=rest.installed, unread=rest.unread)
        done = _run(settings, inventory, directory)
        found = _found(done.stdout, dataclasses.replace(summary, basis=known, network=not _is_confined(done)))
    except UdiError as error:
        return Report(summary=dataclasses.replace(summary, error=error.message[:_MAX_REASON]))
    return found


def basis(settings: AuditConfig) -> str:
    """A digest of what findings depend on: the scanner's words, and each file of its feed by name, size and time.

    Raises UpstreamFailed where the feed cannot be read.
    """
    digest = hashlib.sha256(repr(settings.command).encode())
    count = 0
    for path in settings.feed:
        try:
            for name in _files_of(path):
                count += 1
                if count > _MAX_FEED_FILES:
                    raise UpstreamFailed(f"audit.feed: more than {_MAX_FEED_FILES} files")
                status = os.stat(name)
                digest.update(f"{name!r} {status.st_size} {status.st_mtime_ns} {status.st_ino}\n".encode())
        except OSError as error:
            raise UpstreamFailed(f"audit.feed: {path}: {reason(error)}") from error
    return digest.hexdigest()


def _files_of(path: str) -> Iterator[str]:
    if not os.path.isdir(path):
        yield path
        return
    for directory, directories, names in os.walk(path, onerror=_raise):
        directories.sort()
        yield from (f"{directory}/{name}" for name in sorted(names))


def _raise(error: OSError) -> None:
    raise error


def _run(settings: AuditConfig, inventory: str, directory: str) -> Finished:
    output = bytearray()

    def take(piece: bytes) -> None:
        output.extend(piece)
        if len(output) > _MAX_OUTPUT:
            raise UpstreamFailed(f"the scanner printed more than {_MAX_OUTPUT} bytes")

    limits = [str(settings.memory_bytes), str(settings.seconds), "any" if settings.network else "none"]
    argv = [sys.executable, "-I", "-m", "gateway.audit.confined", inventory, directory, *limits, *settings.command]
    try:
        done = run(argv, seconds=float(settings.seconds), on_stdout=take)
    except UdiError as error:  # which names the program that becomes the scanner
        raise UpstreamFailed(error.message.replace(argv[0], settings.command[0])) from error
    if done.exit_code:
        lines = [
            line for line in done.stderr.decode("utf-8", "replace").splitlines() if line.strip() and line != CONFINED
        ]
        last = f": {printable(lines[-1])}" if lines else ""
        raise UpstreamFailed(f"the scanner ended with exit code {done.exit_code}{last}")
    return dataclasses.replace(done, stdout=bytes(output))


def _is_confined(done: Finished) -> bool:
    return done.stderr.startswith(CONFINED.encode())


def _found(output: bytes, summary: Summary) -> Report:
    """The report that the scanner's output makes. Raises UpstreamFailed."""
    document = JsonValue.parse(output, "the scanner's output", UpstreamFailed).as_object()
    scanner, feed = (printable(document.get(key).text(""), 100) for key in ("scanner", "feed"))
    findings = [_finding(item) for item in document.get("findings").items()]
    return Report.of(dataclasses.replace(summary, scanner=scanner, feed=feed), findings)


def _finding(item: JsonValue) -> Finding:
    severity = item.get("severity").text("").lower()
    texts = {key: item.get(key).text("")[:MAX_TEXT] for key in ("package", "version", "fixed", "summary", "url")}
    return Finding(
        id=item.get("id").text()[:MAX_TEXT], severity=severity if severity in SEVERITIES else SEVERITIES[0], **texts
    )
