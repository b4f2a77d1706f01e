"""What hooks write on this host: their log, syslog, the state of jobs and nodes."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator

from admin.checks.check import Check, Finding, fine, warning, wrong
from udi.config import SiteConfig
from udi.oserrors import reason

_SYSLOG = "/dev/log"
_SECONDS = 2.0
_LEAST_FREE = 16 << 20
"""Bytes: some thousand states of jobs."""


def trials(site: SiteConfig) -> list[Check]:
    """Trials as root."""
    places = {"jobs.state": site.jobs.state, "jobs.nodes": site.jobs.nodes}
    places |= {"jobs.reports": site.jobs.reports} if site.jobs.reports else {}
    state = "the state of jobs and nodes, and what nodes report, can be written"
    return [
        Check("jobs.log", site.jobs.log or "none: hooks log to syslog", lambda: _log(site)),
        Check("jobs.syslog", f"takes messages at {_SYSLOG}", lambda: _syslog(site)),
        Check("jobs.state", state, lambda: _room(tuple(places.items()))),
    ]


def _log(site: SiteConfig) -> Iterator[Finding]:
    """Opened as the hooks open it, but not created: that is theirs to do."""
    path = site.jobs.log
    if not path:
        if not site.jobs.syslog:
            yield warning("hooks log nowhere: jobs.log is empty and jobs.syslog is false", "set one of them")
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield from _room((("jobs.log", os.path.dirname(path)),))
        return
    except OSError as error:
        yield wrong(f"jobs.log: {path}: {reason(error)}", "hooks go on without it, and nobody learns what they did")
        return
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            yield wrong(f"jobs.log: {path} is not a regular file")
    finally:
        os.close(descriptor)
    yield from _room((("jobs.log", os.path.dirname(path)),))


def _syslog(site: SiteConfig) -> Iterator[Finding]:
    if not site.jobs.syslog:
        yield fine("not wanted: jobs.syslog is false")
        return
    if not os.path.exists(_SYSLOG):
        if site.jobs.log:
            yield fine(f"no {_SYSLOG} on this host: {site.jobs.log} has all messages")
        else:
            yield wrong(f"jobs.syslog: there is no {_SYSLOG} on this host, and no jobs.log", "set jobs.log")
        return
    last: OSError | None = None
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with socket.socket(socket.AF_UNIX, kind) as probe:
            probe.settimeout(_SECONDS)
            try:
                probe.connect(_SYSLOG)
            except OSError as error:
                last = error
            else:
                return
    yield warning(
        f"jobs.syslog: {_SYSLOG}: {reason(last) if last else ''}", "start the site's syslogd; hooks go on without it"
    )


def _room(places: tuple[tuple[str, str], ...]) -> Iterator[Finding]:
    """A directory, or the one that it would be made in, is writable and has room."""
    for key, wanted in places:
        path = wanted
        while not os.path.lexists(path):
            path = os.path.dirname(path)
        try:
            system = os.statvfs(path)
        except OSError as error:
            yield wrong(f"{key}: {path}: {reason(error)}")
            continue
        if system.f_flag & os.ST_RDONLY or not os.access(path, os.W_OK | os.X_OK):
            yield wrong(
                f"{key}: {path} cannot be written on this host", "mount it for writing, or choose another place"
            )
        elif system.f_bavail * system.f_frsize < _LEAST_FREE or (system.f_files and not system.f_favail):
            yield wrong(f"{key}: the file system of {path} is full", "make room there")
