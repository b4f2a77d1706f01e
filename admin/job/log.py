"""The hooks' log, read again: the events of one job, from the log and those that it was rotated to.

The one place that knows how a line looks. A line is text,

    2026-11-26 19:29:13,123 udi-prologue[4711] job 123.sdb INFO image debian:12 ready on 4 nodes

or a JSON object with `time`, `program`, `job`, `level` and `message`. Any other line, such as one of a traceback, is
passed over. The newest files are read first, and no more than a bound in all.
"""

from __future__ import annotations

import datetime
import gzip
import json
import os
import re
import stat
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from udi.log import plain
from udi.nodesummary import in_words, times_in_words
from udi.oserrors import reason

MAX_BYTES = 256 << 20
"""Of the log and its rotated files, as they are when they are unpacked."""
MAX_EVENTS = 2000
"""The newest ones of a job are kept."""
_MAX_LINE = 64 << 10
_MAX_FILES = 100
_ROTATED = re.compile(r"[.-][0-9]{1,10}(?:[._-][0-9]{1,10})*(?:\.gz)?")
"""What logrotate appends: `.1`, `.2.gz`, `-20261126.gz`."""
_TEXT = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:[.,]\d{1,6})?) (?P<program>[\w-]{1,60})\[\d{1,10}\]"
    r" job (?P<job>\S{1,120}) (?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL) (?P<message>.*)"
)


@dataclass(frozen=True)
class Event:
    """One line of the log: when (seconds since the epoch), which hook of which job, how bad, and the message."""

    time: float
    program: str
    job: str
    level: str
    message: str


@dataclass(frozen=True)
class JobLog:
    """The events of a job, oldest first; `remark` is why there may be more than these."""

    events: tuple[Event, ...] = ()
    remark: str = ""


def read_log(path: str, job: str, most: int = MAX_BYTES) -> JobLog:
    """The events of the job called `job`, or whose id begins with it and a dot, in the log at `path` and the files that
    it was rotated to; an empty path is no log. `most` is how many bytes are read."""
    if not path:
        return JobLog(remark="jobs.log is empty, so events are in syslog only")
    events: list[Event] = []
    left, remarks = most, list[str]()
    for name in _files(path):
        if left <= 0 or len(events) > MAX_EVENTS:
            remarks.append(f"{name} and older ones were not read")
            break
        try:
            kept, size = _events(name, job, left)
        except (OSError, EOFError, zlib.error) as error:
            remarks.append(f"{name} cannot be read: {reason(error) if isinstance(error, OSError) else error}")
            continue
        events = [*kept, *events]
        left -= size
    if not events and not os.path.exists(path):
        remarks.append(f"there is no {path} on this host")
    return JobLog(tuple(events[-MAX_EVENTS:]), "; ".join(remarks))


def parse_line(line: str) -> Event | None:
    """The event of one line of the log; None for any other text."""
    if line.startswith("{"):
        return _from_json(line)
    match = _TEXT.fullmatch(line)
    seconds = _seconds(match["time"]) if match else None
    if match is None or seconds is None:
        return None
    return Event(seconds, match["program"], match["job"], match["level"], plain(match["message"]))


def _from_json(line: str) -> Event | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    texts = [found.get(name) for name in ("program", "job", "level", "message")] if isinstance(found, dict) else []
    given = found.get("time") if texts else None
    seconds = given if isinstance(given, int | float) else _seconds(given) if isinstance(given, str) else None
    if seconds is None or not all(isinstance(text, str) for text in texts):
        return None
    program, job, level, message = (str(text) for text in texts)
    return Event(float(seconds), plain(program), plain(job), level.upper(), plain(_whole(found, message)))


def _whole(found: dict[str, Any], message: str) -> str:
    """The message as the line for people has it, where that of JSON leaves a part of it to the fields."""
    nodes, dirty, silent = (_text(found, name) for name in ("nodes", "dirty", "silent"))
    step, _, what = message.rpartition(" ")
    if message == "taken down" and nodes:
        return f"taken down on {nodes}{f'; dirty: {dirty}' if dirty else ''}"
    if what == "reported":
        count, of = (number if isinstance(number := found.get(name), int) else 0 for name in ("reported", "count"))
        return f"{step}: {in_words(count, of, _times(found), silent)}"
    if what == "took":
        return ": ".join(filter(None, (step, nodes, _times(found))))
    said = _text(found, "cause") or _text(found, "remark")
    return ": ".join(filter(None, (message, nodes, said))) if said else message


def _text(found: dict[str, Any], name: str) -> str:
    text = found.get(name)
    return text if isinstance(text, str) else ""


def _times(found: dict[str, Any]) -> str:
    slowest, median = found.get("slowest"), found.get("median_ms")
    return times_in_words(slowest, median) if isinstance(slowest, dict) and isinstance(median, int) else ""


def _seconds(text: str) -> float | None:
    """Of a time as the log has it: local where it names no zone."""
    try:
        return datetime.datetime.fromisoformat(text.replace(",", ".")).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def _files(path: str) -> list[str]:
    """The log and what it was rotated to, the newest first."""
    directory, name = os.path.split(path)
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    rotated = [f"{directory}/{each}" for each in names if _is_rotated(each, name)]
    return [path, *sorted(rotated, key=_changed, reverse=True)][:_MAX_FILES]


def _is_rotated(name: str, log: str) -> bool:
    stem, end = os.path.splitext(log)  # logrotate's `extension` puts its mark before the end
    before = name.startswith(stem) and _ROTATED.fullmatch(name.removeprefix(stem).replace(end, "", 1)) if end else None
    return name != log and bool(before or (name.startswith(log) and _ROTATED.fullmatch(name.removeprefix(log))))


def _changed(path: str) -> float:
    try:
        return os.lstat(path).st_mtime
    except OSError:
        return 0.0


def _events(path: str, job: str, most: int) -> tuple[list[Event], int]:
    """The job's events in the last `most` bytes of a file, and how many bytes were read. Raises OSError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError:
        return [], 0
    with os.fdopen(descriptor, "rb") as raw:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "not a regular file", path)
        if path.endswith(".gz"):
            return _of_job(_lines(gzip.GzipFile(fileobj=raw), most), job)  # type: ignore[arg-type]
        raw.seek(max(0, status.st_size - most))
        return _of_job(_lines(raw, most), job)


def _lines(stream: BinaryIO, most: int) -> Iterator[bytes]:
    """Lines, of which the part beyond a limit is a line of its own."""
    read = 0
    while read < most and (line := stream.readline(_MAX_LINE)):
        read += len(line)
        yield line


def _of_job(lines: Iterable[bytes], job: str) -> tuple[list[Event], int]:
    mark, size = job.encode("utf-8", "replace"), 0
    events: deque[Event] = deque(maxlen=MAX_EVENTS)
    for line in lines:
        size += len(line)
        if mark not in line:
            continue
        event = parse_line(line.decode("utf-8", "replace").rstrip("\n"))
        if event and (event.job == job or event.job.startswith(f"{job}.")):
            events.append(event)
    return list(events), size
