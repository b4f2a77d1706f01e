"""How one event of a log is written: as a line for people, or as one JSON object.

A call of the log may say what is in its message once more for programs, by `extra=event(...)`. The line for people has
the message alone; the JSON object has all.
"""

from __future__ import annotations

import json
import logging
import os
import re
from functools import partial

from udiroot.errors import printable

_MAX_MESSAGE = 2000
_MAX_TRACE = 4000
_FIELDS = "udi_fields"
CEE = "@cee: "
"""What precedes a JSON object in syslog, so that rsyslog and syslog-ng know it for one."""


def plain(text: str, limit: int = _MAX_MESSAGE) -> str:
    """The text unchanged where a terminal can show it, else escaped; what is already escaped is not escaped again."""
    shown = text if text.isascii() and text.isprintable() else printable(text, limit)
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


def event(phase: str, **fields: object) -> dict[str, object]:
    """What a log in JSON has of an event beside its message: the `phase` of the job, and values that JSON knows. A
    `message` among them is JSON's own: the one for people would say the values once more."""
    return {_FIELDS: {"phase": phase} | fields}


class PlainFormatter(logging.Formatter):
    """One printable line a record; a traceback follows on lines of its own, its end where it is long."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base class's name
        record.message = plain(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: object) -> str:  # noqa: N802 - the base class's name
        text = super().formatException(ei)  # type: ignore[arg-type]
        return text if len(text) <= _MAX_TRACE else f"...{text[-_MAX_TRACE:]}"


class JsonFormatter(PlainFormatter):
    """One JSON object a record, in one line: `time` (RFC 3339), `program`, `pid`, `level`, `message`, and where there
    are some `job`, `trace` and the fields of the event."""

    def __init__(self, program: str, job: str = "", before: str = "") -> None:
        super().__init__()
        self._program, self._job, self._before = program, job, before
        from datetime import UTC, datetime  # hooks whose log is text start without it

        self._moment = partial(datetime.fromtimestamp, tz=UTC)

    def format(self, record: logging.LogRecord) -> str:
        when = self._moment(record.created).astimezone()
        row: dict[str, object] = {
            "time": when.isoformat(timespec="milliseconds"),
            "program": self._program,
            "pid": os.getpid(),
        }
        if self._job:
            row["job"] = self._job
        row |= {"level": record.levelname, "message": plain(record.getMessage())}
        row |= record.__dict__.get(_FIELDS, {})
        if record.exc_info:
            row["trace"] = self.formatException(record.exc_info)
        return self._before + json.dumps(row, default=str, separators=(",", ":"))


def job_field(job: str) -> str:
    """The job of a line of syslog as one word, `job=ID`, with a blank after it; empty where there is none."""
    return f"job={re.sub(r'[^!-~]', '_', printable(job, 120))} " if job else ""
