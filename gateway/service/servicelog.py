"""The gateway's log: standard error, which systemd keeps; syslog where xinetd made that the connection too."""

from __future__ import annotations

import logging
import logging.handlers
import os
import stat

from udi.config import SiteConfig
from udi.logformat import CEE, JsonFormatter, PlainFormatter

PROGRAM = "udi-gateway"
_FORM = "%(levelname)s %(name)s: %(message)s"


def start_service_log(site: SiteConfig) -> None:
    """Send what this process logs there, in the form that the site wants."""
    handler: logging.Handler = logging.StreamHandler()
    before = ""
    if _is_connection(2):
        has_syslog = os.path.exists("/dev/log")
        facility = logging.handlers.SysLogHandler.facility_names[site.log.facility]
        handler = logging.handlers.SysLogHandler("/dev/log", facility) if has_syslog else logging.NullHandler()
        before = f"{PROGRAM}[{os.getpid()}]: "
    if site.log.format == "json":
        handler.setFormatter(JsonFormatter(PROGRAM, before=f"{before}{CEE}" if before else ""))
    else:
        handler.setFormatter(PlainFormatter(before + _FORM))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def _is_connection(number: int) -> bool:
    """Whether a standard stream is the client's connection, which is on standard input."""
    return stat.S_ISSOCK(os.fstat(number).st_mode) and os.fstat(number).st_ino == os.fstat(0).st_ino
