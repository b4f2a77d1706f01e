"""The hooks' log: syslog and a file, one event a line with the job's id, printable characters only.

A log must never stop a hook: a message that cannot be kept is dropped. A full disk, a syslog that takes no messages, a
log that is no regular file are reported once, in the other log, or on stderr where there is none that works.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from typing import TYPE_CHECKING

from udi.config import FACILITIES, LogConfig, SiteConfig
from udi.logformat import CEE, JsonFormatter, PlainFormatter, job_field, plain
from udi.oserrors import reason
from udiroot.errors import printable

if TYPE_CHECKING:
    import socket

__all__ = ["plain", "start_log", "write_line"]
_SYSLOG = "/dev/log"
_SYSLOG_SECONDS = 1.0
"""How long one process waits for syslog in all. A syslog that is stalled takes no message for minutes."""
_SEVERITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))


def start_log(site: SiteConfig | None, program: str, job: str = "") -> None:
    """Send everything that this process logs where the site wants it, or to syslog while nobody knows that yet.

    A log that cannot be opened is not fatal.
    """
    settings = site.log if site else LogConfig()
    root = logging.getLogger()
    root.setLevel(logging.DEBUG)
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    logs = _Logs(program)
    if site and site.jobs.log:
        logs.add(_File(logs, site.jobs.log), _file_form(settings, program, job))
    if (site is None or site.jobs.syslog) and os.path.exists(_SYSLOG):
        logs.add(_Syslog(logs, FACILITIES[settings.facility]), _syslog_form(settings, program, job))
    logs.open()
    root.addHandler(logs)


def _file_form(settings: LogConfig, program: str, job: str) -> logging.Formatter:
    if settings.format == "json":
        return JsonFormatter(program, printable(job, 120))
    who = f"{program}[{os.getpid()}]" + (f" job {printable(job, 120)}" if job else "")
    return PlainFormatter(f"%(asctime)s {who.replace('%', '%%')} %(levelname)s %(message)s")


def _syslog_form(settings: LogConfig, program: str, job: str) -> logging.Formatter:
    """The program and its process are the tag, which ends at the colon, so that syslogd and journald find both."""
    tag = f"{program}[{os.getpid()}]: "
    if settings.format == "json":
        return JsonFormatter(program, printable(job, 120), before=f"{tag}{CEE}")
    return PlainFormatter(f"{tag}{job_field(job)}".replace("%", "%%") + "%(message)s")


class _Logs(logging.Handler):
    """Passes each record to all logs; one that fails is left out from then on, and the others are told."""

    def __init__(self, program: str) -> None:
        super().__init__()
        self._program = program
        self._logs: list[_Log] = []

    def add(self, log: _Log, form: logging.Formatter) -> None:
        """Add a log, which is not open yet."""
        log.setFormatter(form)
        self._logs.append(log)

    def open(self) -> None:
        """Open all, the last one first, so that one which cannot be opened is reported in another."""
        for log in reversed(list(self._logs)):
            try:
                log.open()
            except OSError as error:
                self.failed(log, error)

    def emit(self, record: logging.LogRecord) -> None:
        for log in list(self._logs):
            if record.levelno >= log.level:
                log.handle(record)

    def failed(self, log: _Log, error: OSError) -> None:
        """Leave a log out, and report that once where it can be read."""
        if log not in self._logs:
            return
        self._logs.remove(log)
        log.close()
        text = f"nothing more is logged in {log.place}: {reason(error)}"
        if self._logs:
            self.emit(logging.LogRecord("udi", logging.ERROR, __file__, 0, text, None, None))
        else:
            write_line(f"{self._program}: {text}")


class _Log(logging.Handler):
    """One place that takes records. What it raises is a failure of that place."""

    place = ""

    def __init__(self, logs: _Logs) -> None:
        super().__init__()
        self._logs = logs

    def open(self) -> None:
        """Raises OSError."""

    def take(self, record: logging.LogRecord, text: str) -> None:
        """Raises OSError."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
        except Exception as error:  # noqa: BLE001 - a defect of a message is not to stop a hook, nor to lose the log
            text = f"{record.name}: message that cannot be formatted: {printable(record.msg)}: {printable(error)}"
        try:
            self.take(record, text)
        except OSError as error:
            self._logs.failed(self, error)


class _File(_Log):
    """The log file: appended to in one write a record, so that the hooks of many jobs can share it. One that was given
    another name, as for a rotation, is left for a new one at the next record: no process need be told."""

    def __init__(self, logs: _Logs, path: str) -> None:
        super().__init__(logs)
        self.place = path
        self._descriptor = -1

    def open(self) -> None:
        """0600, since nodes' output may contain user text. Nothing but a regular file: a pipe could block."""
        os.makedirs(os.path.dirname(self.place), mode=0o755, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        self._descriptor = os.open(self.place, flags, 0o600)
        if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            raise OSError("not a regular file")

    def take(self, record: logging.LogRecord, text: str) -> None:
        if not self._is_in_place():
            os.close(self._descriptor)
            self._descriptor = -1
            self.open()
        data = f"{text}\n".encode("utf-8", "backslashreplace")
        written = os.write(self._descriptor, data)
        if written < len(data):
            os.write(self._descriptor, data[written:])  # raises what cut the first write short

    def _is_in_place(self) -> bool:
        try:
            return os.path.samestat(os.stat(self.place), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        super().close()


class _Syslog(_Log):
    """syslogd's socket."""

    place = _SYSLOG

    def __init__(self, logs: _Logs, facility: int) -> None:
        super().__init__(logs)
        self.setLevel(logging.INFO)
        self._facility = facility << 3
        self._socket: socket.socket | None = None
        self._left = _SYSLOG_SECONDS

    def open(self) -> None:
        import socket  # not every site wants the hooks in syslog

        try:
            self._connect(socket.SOCK_DGRAM)
        except OSError:
            self._connect(socket.SOCK_STREAM)

    def take(self, record: logging.LogRecord, text: str) -> None:
        if self._socket is None:
            return
        severity = next(code for level, code in _SEVERITIES if record.levelno >= level)
        data = f"<{self._facility | severity}>{text}".encode("utf-8", "backslashreplace") + b"\0"
        try:
            self._send(data)
        except ConnectionError:  # it was started again meanwhile
            self.open()
            self._send(data)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        super().close()

    def _connect(self, kind: socket.SocketKind) -> None:
        import socket

        self.close()
        made = socket.socket(socket.AF_UNIX, kind)
        try:
            made.settimeout(max(0.0, self._left))
            made.connect(_SYSLOG)
        except BaseException:
            made.close()
            raise
        self._socket = made

    def _send(self, data: bytes) -> None:
        if self._socket is None:
            return
        if self._left <= 0:
            raise TimeoutError("it takes no messages")
        self._socket.settimeout(self._left)
        began = time.monotonic()
        try:
            self._socket.sendall(data)
        finally:
            self._left -= time.monotonic() - began


def write_line(text: str, seconds: float = 2.0) -> None:
    """One line on stderr, where that takes it within seconds: it may be closed, full, or a stopped terminal."""
    import select

    data = f"{text}\n".encode("utf-8", "backslashreplace")
    try:
        poll = select.poll()
        poll.register(2, select.POLLOUT)
        if any(event & select.POLLOUT for _, event in poll.poll(seconds * 1000)):
            os.write(2, data)
    except OSError:
        return  # there is nowhere left to report that
