"""What the client and the service say to each other: lines of JSON over a stream socket.

The client sends one request, `{"udi": 1, "do": …}`, with descriptors of the files that it names (SCM_RIGHTS). The
service answers with events, one a line, the last of which is `done` or `error`:

    {"event": "queued"}
    {"event": "progress", "stage": "fetching|copying|reading|packing|…", "bytes": 1, "total": 2}      total 0: not known
    {"event": "progress", …, "layers": [[name, bytes, total], …]}                          where layers are told apart
    {"event": "storing"}
    {"event": "done", …}                   what was asked for; keys by request, see `gateway.service.requests`
    {"event": "error", "message": …, "hint": …, "exit_code": …}

Over the network, each line is a MUNGE credential that holds such a line (`gateway.wire.channels`).

A request of another version is refused with an error that names both.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from typing import Any

from udiroot import errors
from udiroot.errors import TimedOut, UdiError, UpstreamFailed, UsageError, printable

VERSION = 1
MAX_REQUEST = 64 << 10
MAX_EVENT = 64 << 20
"""An answer may hold the facts of an image, which are bounded by the gateway, or a list of all images."""
MAX_DESCRIPTORS = 253

_CREDENTIALS = struct.Struct("3i")


def peer_uid(connection: socket.socket) -> int:
    """Who is at the other end, by the kernel's word."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid: int = _CREDENTIALS.unpack(raw)[1]
    return uid


def send(connection: socket.socket, message: dict[str, Any], descriptors: list[int] | None = None) -> None:
    """One line, with descriptors beside its first byte."""
    line = json.dumps(message).encode() + b"\n"
    sent = socket.send_fds(connection, [line], descriptors) if descriptors else 0
    if sent < len(line):  # sending nothing would fail where the answer has come already
        connection.sendall(line[sent:])


def receive_request(connection: socket.socket, seconds: float) -> tuple[dict[str, Any], list[int]]:
    """The one request of a connection and the descriptors that came with it, which are the caller's to close.

    Raises UsageError for one that is too large, cut off, not ours or of another version; TimedOut when it takes longer
    than `seconds` in all.
    """
    deadline = time.monotonic() + seconds
    line, descriptors = b"", []
    try:
        while not line.endswith(b"\n"):
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            piece, passed, flags, _ = socket.recv_fds(
                connection, MAX_REQUEST + 1 - len(line), MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
            )
            descriptors += passed
            line += piece
            if flags & socket.MSG_CTRUNC:
                raise UsageError("descriptors of the request were lost")
            if not piece:
                raise UsageError("request is cut off")
            if len(line) > MAX_REQUEST or len(descriptors) > MAX_DESCRIPTORS:
                raise UsageError(f"request is larger than {MAX_REQUEST} bytes")
        return checked(line), descriptors
    except BaseException as error:
        for descriptor in descriptors:
            os.close(descriptor)
        if isinstance(error, TimeoutError):
            raise TimedOut(f"no request within {seconds:.0f} s") from error
        raise


def checked(line: bytes) -> dict[str, Any]:
    """The request that a line holds. Raises UsageError, also for one of another version."""
    message = decode(line)
    if message.get("udi") != VERSION:
        raise UsageError(f"request is of version {printable(message.get('udi'))}, this service speaks {VERSION}")
    return message


def decode(line: bytes) -> dict[str, Any]:
    """The object that a line holds. Raises UsageError."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError("not a line of JSON") from error
    if not isinstance(message, dict):
        raise UsageError("not a JSON object")
    return message


class LineReader:
    """Lines of a service, one after the other."""

    def __init__(self, connection: socket.socket, most: int) -> None:
        self._connection = connection
        self._most = most
        self._waiting = bytearray()

    def next(self, seconds: float) -> bytes:
        """The next line. Raises TimedOut when none comes within `seconds`, ServiceGone when the service is gone."""
        deadline = time.monotonic() + seconds
        while b"\n" not in self._waiting:
            self._connection.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                piece = self._connection.recv(1 << 16)
            except TimeoutError as error:
                raise TimedOut(f"the gateway said nothing for {seconds:.0f} s") from error
            except OSError as error:
                raise ServiceGone(f"the gateway is gone: {(error.strerror or '').lower()}") from error
            if not piece or len(self._waiting) > self._most:
                raise ServiceGone("the gateway ended the connection without an answer", "ask again")
            self._waiting += piece
        line, _, rest = bytes(self._waiting).partition(b"\n")
        self._waiting = bytearray(rest)
        return line


class EventReader:
    """Events of a service, one after the other."""

    def __init__(self, connection: socket.socket) -> None:
        self._lines = LineReader(connection, MAX_EVENT)

    def next(self, seconds: float) -> dict[str, Any]:
        """The next event. Raises TimedOut when none comes within `seconds`, ServiceGone when the service is gone."""
        line = self._lines.next(seconds)
        try:
            return decode(line)
        except UsageError as error:
            raise UpstreamFailed(f"the gateway answered with something else: {printable(line[:80])}") from error


class ServiceGone(UpstreamFailed):
    """The service went away in the middle of a request."""


def error_event(error: UdiError) -> dict[str, Any]:
    return {"event": "error", "message": error.message, "hint": error.hint, "exit_code": error.exit_code}


def raised(event: dict[str, Any]) -> UdiError:
    """The error that an `error` event tells of."""
    code = event.get("exit_code")
    kinds = {kind.exit_code: kind for kind in UdiError.__subclasses__() if kind is not errors.ConfigError}
    kind = kinds.get(code, UpstreamFailed) if isinstance(code, int) else UpstreamFailed
    return kind(printable(event.get("message"), 1000), printable(event.get("hint", ""), 1000))
