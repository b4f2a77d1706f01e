"""Lines of JSON over a stream socket: how a client and the service of one machine exchange messages.

The client sends one request (`gateway.wire.messages`) on one line, with descriptors of the files that it names
(SCM_RIGHTS). The service answers with events (`gateway.wire.events`), one per line. Over the network, each line is a
MUNGE credential that holds such a line (`gateway.wire.channels`).
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import time
from collections.abc import Callable

from gateway.wire.codec import Document
from udi.jsonvalue import read_json
from udi.oserrors import reason
from udiroot.errors import TimedOut, UpstreamFailed, UsageError, printable

MAX_REQUEST = 64 << 10
MAX_EVENT = 64 << 20
"""An answer may hold the facts of an image, which are bounded by the gateway, or a list of all images."""
MAX_DESCRIPTORS = 253

_CREDENTIALS = struct.Struct("i2I")  # ids are unsigned


def peer_uid(connection: socket.socket) -> int:
    """The uid of the process at the other end, as the kernel reports it."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid: int = _CREDENTIALS.unpack(raw)[1]
    return uid


def send(connection: socket.socket, document: Document, descriptors: list[int] | None = None) -> None:
    """One line, with descriptors attached to its first byte."""
    line = json.dumps(document).encode() + b"\n"
    sent = socket.send_fds(connection, [line], descriptors) if descriptors else 0
    if sent < len(line):  # sending nothing would fail where the answer has come already
        connection.sendall(line[sent:])


def receive(
    connection: socket.socket,
    seconds: float,
    held: contextlib.ExitStack,
    admit: Callable[[int], None] = lambda count: None,
) -> tuple[Document, list[int]]:
    """The one request of a connection and the descriptors that came with it, which `held` owns.

    `admit` gets the number of descriptors each time that some arrive, and may raise. Raises UsageError for a request
    that is too large, cut off or not a JSON object; TimedOut when it takes longer than `seconds` in all.
    """
    deadline = time.monotonic() + seconds
    line, descriptors = bytearray(), list[int]()
    while not line.endswith(b"\n"):
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            piece, passed, flags, _ = socket.recv_fds(
                connection, MAX_REQUEST + 1 - len(line), MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
            )
        except TimeoutError as error:
            raise TimedOut(f"no request within {seconds:.0f} s") from error
        for descriptor in passed:
            held.callback(os.close, descriptor)
        if passed:
            admit(len(passed))
        descriptors += passed
        line += piece
        if flags & socket.MSG_CTRUNC:
            raise UsageError("descriptors of the request were lost")
        if not piece:
            raise UsageError("the request is cut off")
        if len(line) > MAX_REQUEST or len(descriptors) > MAX_DESCRIPTORS:
            raise UsageError(f"the request is larger than {MAX_REQUEST} bytes")
    return decode(bytes(line)), descriptors


def decode(line: bytes) -> Document:
    """The object that a line holds. Raises UsageError."""
    try:
        document = read_json(line)
    except ValueError as error:
        raise UsageError(f"the line is not valid JSON: {printable(error)}") from error
    if not isinstance(document, dict):
        raise UsageError("the line is not a JSON object")
    return document


class LineReader:
    """Lines of a service, one after the other; none may be longer than `limit` bytes."""

    def __init__(self, connection: socket.socket, limit: int = MAX_EVENT) -> None:
        self._connection = connection
        self._limit = limit
        self._waiting = bytearray()

    def next(self, seconds: float) -> bytes:
        """The next line. Raises TimedOut when none comes within `seconds`, ServiceGone when the service is gone."""
        deadline = time.monotonic() + seconds
        complete = b"\n" in self._waiting
        while not complete:
            self._connection.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                piece = self._connection.recv(1 << 16)
            except TimeoutError as error:
                raise TimedOut(f"the gateway sent nothing for {seconds:.0f} s") from error
            except OSError as error:
                raise ServiceGone(f"the connection to the gateway was lost: {reason(error)}") from error
            if not piece or len(self._waiting) > self._limit:
                raise ServiceGone("the gateway closed the connection without an answer", "try again")
            self._waiting += piece
            complete = b"\n" in piece
        line, _, rest = bytes(self._waiting).partition(b"\n")
        self._waiting = bytearray(rest)
        return line


class ServiceGone(UpstreamFailed):
    """The connection to the service was lost in the middle of a request."""
