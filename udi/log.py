"""The hooks' log: syslog and a file, the job's id in each line, printable characters only."""

from __future__ import annotations

import logging
import logging.handlers
import os

from udi.config import SiteConfig
from udiroot.errors import printable

_SYSLOG = "/dev/log"
_MAX_MESSAGE = 2000


def plain(text: str, limit: int = _MAX_MESSAGE) -> str:
    """The text unchanged where a terminal can show it, else escaped; what is already escaped is not escaped again."""
    shown = text if text.isascii() and text.isprintable() else printable(text, limit)
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


class _PlainFormatter(logging.Formatter):
    """One printable line a record, with the job's id; a traceback follows on lines of its own."""

    def __init__(self, form: str) -> None:
        super().__init__(form)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base class's name
        record.message = plain(record.message)
        return super().formatMessage(record)


def start_log(site: SiteConfig, program: str, job: str = "") -> None:
    """Send everything that this process logs where the site wants it. A log that cannot be opened is not fatal."""
    who = f"{program}[{os.getpid()}]" + (f" job {printable(job, 120)}" if job else "")
    root = logging.getLogger()
    root.setLevel(logging.DEBUG)
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    problems = []
    for make in (_file, _syslog):
        try:
            made = make(site, who.replace("%", "%%"))
        except OSError as error:
            problems.append(f"{make.__name__.strip('_')}: {error.strerror}")
            continue
        if made:
            root.addHandler(made)
    if not root.handlers:
        root.addHandler(logging.NullHandler())
    for problem in problems:
        logging.getLogger("udi").warning("log could not be opened: %s", problem)


def _file(site: SiteConfig, who: str) -> logging.Handler | None:
    if not site.jobs.log:
        return None
    os.makedirs(os.path.dirname(site.jobs.log), mode=0o755, exist_ok=True)
    # O_NOFOLLOW is not needed: the directory is root's; 0600, since nodes' output may contain user text.
    os.close(os.open(site.jobs.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600))
    handler = logging.handlers.WatchedFileHandler(site.jobs.log)
    handler.setFormatter(_PlainFormatter(f"%(asctime)s {who} %(levelname)s %(message)s"))
    return handler


def _syslog(site: SiteConfig, who: str) -> logging.Handler | None:
    if not site.jobs.syslog or not os.path.exists(_SYSLOG):
        return None
    handler = logging.handlers.SysLogHandler(_SYSLOG, logging.handlers.SysLogHandler.LOG_DAEMON)
    handler.setLevel(logging.INFO)
    handler.setFormatter(_PlainFormatter(f"{who}: %(message)s"))
    return handler
