"""The hooks' log: syslog and a file, the job's id in each line, printable characters only.

A log must never stop a hook: a message that cannot be kept is dropped. A full disk, a syslog that takes no messages, a
log that is no regular file are reported once, in the other log, or on stderr where there is none that works.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
import time

from udi.config import SiteConfig
from udi.oserrors import reason
from udiroot.errors import printable

_SYSLOG = "/dev/log"
_MAX_MESSAGE = 2000
_SYSLOG_SECONDS = 1.0
"""How long one process waits for syslog in all. A syslog that is stalled takes no message for minutes."""
_DAEMON = 3 << 3
_SEVERITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))


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


def start_log(site: SiteConfig | None, program: str, job: str = "") -> None:
    """Send everything that this process logs where the site wants it, or to syslog while nobody knows that yet.

    A log that cannot be opened is not fatal.
    """
    who = f"{program}[{os.getpid()}]" + (f" job {printable(job, 120)}" if job else "")
    root = logging.getLogger()
    root.setLevel(logging.DEBUG)
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    logs = _Logs(program)
    if site and site.jobs.log:
        logs.add(_File(logs, site.jobs.log), f"%(asctime)s {who.replace('%', '%%')} %(levelname)s %(message)s")
    if (site is None or site.jobs.syslog) and os.path.exists(_SYSLOG):
        logs.add(_Syslog(logs), f"{who.replace('%', '%%')}: %(message)s")
    logs.open()
    root.addHandler(logs)


class _Logs(logging.Handler):
    """Passes each record to all logs; one that fails is left out from then on, and the others are told."""

    def __init__(self, program: str) -> None:
        super().__init__()
        self._program = program
        self._logs: list[_Log] = []

    def add(self, log: _Log, form: str) -> None:
        """Add a log, which is not open yet."""
        log.setFormatter(_PlainFormatter(form))
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
    """The log file: appended to in one write a record, so that the hooks of many jobs can share it."""

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
        data = f"{text}\n".encode("utf-8", "backslashreplace")
        written = os.write(self._descriptor, data)
        if written < len(data):
            os.write(self._descriptor, data[written:])  # raises what cut the first write short

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        super().close()


class _Syslog(_Log):
    """syslogd's socket."""

    place = _SYSLOG

    def __init__(self, logs: _Logs) -> None:
        super().__init__(logs)
        self.setLevel(logging.INFO)
        self._socket: socket.socket | None = None
        self._left = _SYSLOG_SECONDS

    def open(self) -> None:
        try:
            self._connect(socket.SOCK_DGRAM)
        except OSError:
            self._connect(socket.SOCK_STREAM)

    def take(self, record: logging.LogRecord, text: str) -> None:
        if self._socket is None:
            return
        severity = next(code for level, code in _SEVERITIES if record.levelno >= level)
        data = f"<{_DAEMON | severity}>{text}".encode("utf-8", "backslashreplace") + b"\0"
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
