"""The two ends of a connection, on one machine and between machines, and how each end proves its identity.

On one machine: lines of JSON over a UNIX socket, SO_PEERCRED, files as descriptors. Between machines: the same messages
over TCP, each on a line that is a MUNGE credential; the request's is issued for the gateway's account, which alone can
decode it, the replies' for the caller. Replies repeat the request's nonce and are numbered, so that none can be
substituted for another. Files follow the request unencrypted, and after them a credential with their sha256.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from gateway.wire import events, protocol
from gateway.wire.codec import Document
from gateway.wire.events import Event
from gateway.wire.munge import MAX_TEXT, Munge
from gateway.wire.protocol import ServiceGone
from udi.gatewayconfig import GatewayConfig
from udi.oserrors import reason
from udiroot.errors import ImageInvalid, NotPermitted, TimedOut, UpstreamFailed, UsageError

_PIECE = 1 << 20
_STREAM_SILENCE = 60.0
_MAX_CREDENTIAL = 2 * MAX_TEXT + 4096
_MAX_FILES = 250


AdmitFiles = Callable[[int, int, int, contextlib.ExitStack], None]
"""Counts files of a user (uid, files, bytes of uploads in them) until the stack is closed, and may raise UdiError."""


class ServiceEnd(Protocol):
    """The service's end of one connection."""

    uid: int
    """The caller; known once `receive` has returned."""

    def receive(self, seconds: float, held: contextlib.ExitStack, admit: AdmitFiles) -> tuple[Document, list[int]]:
        """The request, and descriptors of its files, which `held` owns. Raises UdiError."""

    def send(self, event: Event) -> None:
        """Send one event. Raises OSError when the client is gone."""


class LocalServiceEnd:
    """On one machine."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.uid = protocol.peer_uid(connection)

    def receive(self, seconds: float, held: contextlib.ExitStack, admit: AdmitFiles) -> tuple[Document, list[int]]:
        return protocol.receive(self._connection, seconds, held, lambda count: admit(self.uid, count, 0, held))

    def send(self, event: Event) -> None:
        self._connection.sendall(events.to_json(event).encode() + b"\n")


class NetworkServiceEnd:
    """Between machines. Nothing is answered before the request has proved who the caller is."""

    uid = -1

    def __init__(self, connection: socket.socket, settings: GatewayConfig) -> None:
        self._connection = connection
        self._settings = settings
        self._munge = Munge(settings.munge)
        self._nonce = ""
        self._count = 0

    def receive(self, seconds: float, held: contextlib.ExitStack, admit: AdmitFiles) -> tuple[Document, list[int]]:
        line, rest = _read_line(self._connection, protocol.MAX_REQUEST * 2, seconds)
        decoded = self._munge.decode(line)
        request = protocol.decode(decoded.text)
        nonce, sizes = request.pop("nonce", None), request.pop("sizes", [])
        if not isinstance(nonce, str) or not 16 <= len(nonce) <= 64:
            raise UsageError("the request has no nonce")
        self.uid, self._nonce = decoded.uid, nonce
        checked = self._checked_sizes(sizes)
        admit(self.uid, len(checked), sum(checked), held)
        return request, self._files(checked, rest, held, seconds)

    def send(self, event: Event) -> None:
        text = events.to_json(event)
        pieces = [text[at : at + MAX_TEXT // 2] for at in range(0, len(text), MAX_TEXT // 2)]
        for number, piece in enumerate(pieces, 1):
            reply = {"nonce": self._nonce, "count": self._count, "last": number == len(pieces), "text": piece}
            self._count += 1
            self._connection.sendall(self._munge.encode(json.dumps(reply).encode(), self.uid) + b"\n")

    def _checked_sizes(self, sizes: object) -> list[int]:
        if not isinstance(sizes, list) or not all(type(size) is int and size >= 0 for size in sizes):
            raise UsageError("the sizes of the request's files must be integers of at least 0")
        if len(sizes) > _MAX_FILES or sum(sizes) > self._settings.max_image_bytes:
            raise ImageInvalid("the image is too large", "limit set by gateway.max_image_bytes")
        return sizes

    def _files(self, sizes: list[int], begun: bytes, held: contextlib.ExitStack, seconds: float) -> list[int]:
        """Unnamed copies of the files that follow the request, which are what the caller sent."""
        descriptors: list[int] = []
        sums: list[str] = []
        end = time.monotonic() + self._settings.conversion_seconds
        try:
            for size in sizes:
                target = os.open(self._settings.state, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
                held.callback(os.close, target)
                descriptors.append(target)
                hashed = hashlib.sha256()
                begun = self._copy(target, size, begun, end, hashed.update)
                sums.append(hashed.hexdigest())
            if sizes:
                line, _ = _read_line(self._connection, _MAX_CREDENTIAL, seconds, "sha256 of its files", begun)
                self._require_sent(sums, line)
        except TimeoutError as error:
            raise TimedOut(f"nothing more of the image was received for {_STREAM_SILENCE:.0f} s") from error
        except OSError as error:
            raise UpstreamFailed(f"the gateway could not receive the image: {reason(error)}") from error
        return descriptors

    def _require_sent(self, sums: list[str], line: bytes) -> None:
        """Raises UdiError unless the caller proves with this line that these are the files of the request."""
        decoded = self._munge.decode(line)
        proof = protocol.decode(decoded.text)
        if (decoded.uid, proof.get("nonce")) != (self.uid, self._nonce):
            raise UsageError("the files do not belong to this request")
        if proof.get("sha256") != sums:
            raise ImageInvalid("what arrived are not the files that were sent", "try again")

    def _copy(self, target: int, size: int, piece: bytes, end: float, see: Callable[[bytes], object]) -> bytes:
        """Write `size` bytes, whose first ones are in `piece`, and show them to `see`. Returns what came after them."""
        self._connection.settimeout(_STREAM_SILENCE)
        while size:
            if time.monotonic() > end:
                raise TimedOut(
                    f"the image was not received within {self._settings.conversion_seconds} s",
                    "limit set by gateway.conversion_seconds",
                )
            if not piece:
                piece = self._connection.recv(min(_PIECE, size))
                if not piece:
                    raise UsageError("the image is cut off")
            count = os.write(target, piece[:size])
            see(piece[:count])
            size, piece = size - count, piece[count:]
        return piece


class ClientEnd(Protocol):
    """The client's end of one connection."""

    def send(self, request: Document, files: Sequence[int], timeout: float) -> None:
        """Send the request and its files. Raises OSError."""

    def next(self, timeout: float) -> bytes:
        """The next event, as JSON. Raises TimedOut, UpstreamFailed."""


class LocalClientEnd:
    """On one machine."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lines = protocol.LineReader(connection)

    def send(self, request: Document, files: Sequence[int], timeout: float) -> None:
        protocol.send(self._connection, request, list(files))

    def next(self, timeout: float) -> bytes:
        return self._lines.next(timeout)


class NetworkClientEnd:
    """Between machines: accepts replies of the gateway's account only."""

    def __init__(self, connection: socket.socket, munge: str, gateway_uid: int) -> None:
        self._connection = connection
        self._munge = Munge(munge)
        self._gateway_uid = gateway_uid
        self._nonce = secrets.token_hex(16)
        self._count = 0
        self._lines = protocol.LineReader(connection, _MAX_CREDENTIAL)

    def send(self, request: Document, files: Sequence[int], timeout: float) -> None:
        envelope: Document = {"nonce": self._nonce}
        if files:
            envelope["sizes"] = [os.fstat(descriptor).st_size for descriptor in files]
        credential = self._munge.encode(json.dumps(request | envelope).encode(), self._gateway_uid)
        self._connection.sendall(credential + b"\n")
        sums = []
        for descriptor in files:
            hashed = hashlib.sha256()
            for piece in _pieces(descriptor):
                self._connection.settimeout(timeout)
                self._connection.sendall(piece)
                hashed.update(piece)
            sums.append(hashed.hexdigest())
        if files:
            proof = json.dumps({"nonce": self._nonce, "sha256": sums})
            self._connection.sendall(self._munge.encode(proof.encode(), self._gateway_uid) + b"\n")

    def next(self, timeout: float) -> bytes:
        text = ""
        while True:
            reply = self._reply(self._next_line(timeout))
            text += str(reply.get("text", ""))
            if len(text) > protocol.MAX_EVENT:
                raise UpstreamFailed("the gateway's answer is too large")
            if reply.get("last"):
                return text.encode()

    def _next_line(self, timeout: float) -> bytes:
        try:
            return self._lines.next(timeout)
        except ServiceGone as error:
            if self._count:
                raise
            raise ServiceGone(_UNANSWERED, _NOT_PROVED) from error

    def _reply(self, line: bytes) -> Document:
        """One reply, proved to be the gateway's next one to this request."""
        try:
            decoded = self._munge.decode(line)
            reply = protocol.decode(decoded.text)
        except (NotPermitted, UsageError) as error:
            raise UpstreamFailed(_IMPOSTOR, error.message) from error
        expected = (self._gateway_uid, self._nonce, self._count)
        if (decoded.uid, reply.get("nonce"), reply.get("count")) != expected:
            raise UpstreamFailed(_IMPOSTOR)
        self._count += 1
        return reply


_IMPOSTOR = "the server could not prove that it is the gateway"
_UNANSWERED = "the gateway closed the connection without an answer"
_NOT_PROVED = "it answers no host whose MUNGE key or clock differs from its own; if it stays so, tell the site's staff"


def _pieces(descriptor: int) -> Iterator[bytes]:
    """A file from its beginning, to the size that it had when it was opened: the size was announced."""
    at, size = 0, os.fstat(descriptor).st_size
    while at < size:
        piece = os.pread(descriptor, min(_PIECE, size - at), at)
        if not piece:
            raise ImageInvalid("the image file became shorter while it was sent")
        at += len(piece)
        yield piece


def _read_line(
    connection: socket.socket, limit: int, seconds: float, what: str = "request", text: bytes = b""
) -> tuple[bytes, bytes]:
    """A line, whose beginning may have arrived, and what arrived after it already. Raises UsageError, TimedOut."""
    deadline = time.monotonic() + seconds
    while b"\n" not in text:
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            piece = connection.recv(1 << 16)
        except TimeoutError as error:
            raise TimedOut(f"no {what} within {seconds:.0f} s") from error
        if not piece:
            raise UsageError(f"the {what} is cut off")
        text += piece
        if len(text) > limit and b"\n" not in text[:limit]:
            raise UsageError(f"the {what} is too large")
    line, _, rest = text.partition(b"\n")
    return line, rest
