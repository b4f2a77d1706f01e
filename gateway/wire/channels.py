"""The two ways that a client and the service speak, and how each proves who is at the other end.

On one machine: lines of JSON over a UNIX socket, SO_PEERCRED, files as descriptors. Between machines: the same messages
over TCP, each a line that is a MUNGE credential; the request's is made for the gateway's account, which alone can
read it, the replies' for the caller. Replies repeat the request's nonce and are counted, so that none can be put in
another's place. Files follow the request as they are; what they must be is the image's id, which the request holds.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections.abc import Iterator
from typing import Any, Protocol

from gateway.wire import protocol
from gateway.wire.munge import MAX_TEXT, Munge
from udi.config import GatewayConfig
from udiroot.errors import ImageInvalid, NotPermitted, TimedOut, UpstreamFailed, UsageError

_PIECE = 1 << 20
_STREAM_SILENCE = 60.0
_MAX_CREDENTIAL = 2 * MAX_TEXT + 4096
_MAX_FILES = 250


class Channel(Protocol):
    """The service's end of one connection."""

    uid: int
    """Who asks; known once `receive` has returned."""

    def receive(self, seconds: float) -> tuple[dict[str, Any], list[int]]:
        """The request, and descriptors of its files, which are then the caller's to close. Raises UdiError."""

    def send(self, event: dict[str, Any]) -> None:
        """One event. Raises OSError when the client is gone."""


class LocalChannel:
    """On one machine."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.uid = protocol.peer_uid(connection)

    def receive(self, seconds: float) -> tuple[dict[str, Any], list[int]]:
        return protocol.receive_request(self._connection, seconds)

    def send(self, event: dict[str, Any]) -> None:
        protocol.send(self._connection, event)


class NetworkChannel:
    """Between machines. Nothing is answered before the request has proved who asks."""

    uid = -1

    def __init__(self, connection: socket.socket, settings: GatewayConfig) -> None:
        self._connection = connection
        self._settings = settings
        self._munge = Munge(settings.munge)
        self._nonce = ""
        self._count = 0

    def receive(self, seconds: float) -> tuple[dict[str, Any], list[int]]:
        line, rest = _read_line(self._connection, protocol.MAX_REQUEST * 2, seconds)
        proved = self._munge.decode(line)
        request = protocol.checked(proved.text)
        nonce = request.get("nonce")
        if not isinstance(nonce, str) or not 16 <= len(nonce) <= 64:
            raise UsageError("request has no nonce")
        self.uid, self._nonce = proved.uid, nonce
        return request, self._files(request, rest)

    def send(self, event: dict[str, Any]) -> None:
        text = json.dumps(event)
        pieces = [text[at : at + MAX_TEXT // 2] for at in range(0, len(text), MAX_TEXT // 2)]
        for number, piece in enumerate(pieces, 1):
            reply = {"nonce": self._nonce, "count": self._count, "last": number == len(pieces), "text": piece}
            self._count += 1
            self._connection.sendall(self._munge.encode(json.dumps(reply).encode(), self.uid) + b"\n")

    def _files(self, request: dict[str, Any], begun: bytes) -> list[int]:
        """Copies, without a name, of the files that follow the request."""
        sizes = request.get("sizes", [])
        if not isinstance(sizes, list) or not all(type(size) is int and size >= 0 for size in sizes):
            raise UsageError("request tells no sizes of its files")
        if len(sizes) > _MAX_FILES or sum(sizes) > self._settings.max_image_bytes:
            raise ImageInvalid("image is larger than gateway.max_image_bytes allows")
        descriptors: list[int] = []
        try:
            for size in sizes:
                target = os.open(self._settings.state, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
                descriptors.append(target)
                begun = self._copy(target, size, begun)
        except BaseException as error:
            for descriptor in descriptors:
                os.close(descriptor)
            if isinstance(error, TimeoutError):
                raise TimedOut(f"nothing more of the image within {_STREAM_SILENCE:.0f} s") from error
            if isinstance(error, OSError):
                raise UpstreamFailed(f"image cannot be taken over: {(error.strerror or '').lower()}") from error
            raise
        return descriptors

    def _copy(self, target: int, size: int, piece: bytes) -> bytes:
        """Write `size` bytes, of which `piece` came already. Returns what came too much: the next file's."""
        self._connection.settimeout(_STREAM_SILENCE)
        while size:
            if not piece:
                piece = self._connection.recv(min(_PIECE, size))
                if not piece:
                    raise UsageError("image is cut off")
            count = os.write(target, piece[:size])
            size, piece = size - count, piece[count:]
        return piece


class Asker(Protocol):
    """The client's end of one connection."""

    def ask(self, message: dict[str, Any], files: dict[str, int], timeout: float) -> None:
        """Send the request. Raises OSError."""

    def next(self, timeout: float) -> dict[str, Any]:
        """The next event. Raises TimedOut, UpstreamFailed."""


class LocalAsker:
    """On one machine."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._events = protocol.EventReader(connection)

    def ask(self, message: dict[str, Any], files: dict[str, int], timeout: float) -> None:
        more: dict[str, Any] = {"files": list(files)} if files else {}
        protocol.send(self._connection, message | more, list(files.values()))

    def next(self, timeout: float) -> dict[str, Any]:
        return self._events.next(timeout)


class NetworkAsker:
    """Between machines: believes replies of the gateway's account alone."""

    def __init__(self, connection: socket.socket, munge: str, gateway_uid: int) -> None:
        self._connection = connection
        self._munge = Munge(munge)
        self._gateway_uid = gateway_uid
        self._nonce = secrets.token_hex(16)
        self._count = 0
        self._lines = protocol.LineReader(connection, _MAX_CREDENTIAL)

    def ask(self, message: dict[str, Any], files: dict[str, int], timeout: float) -> None:
        more: dict[str, Any] = {"nonce": self._nonce}
        if files:
            more |= {"files": list(files), "sizes": [os.fstat(descriptor).st_size for descriptor in files.values()]}
        credential = self._munge.encode(json.dumps(message | more).encode(), self._gateway_uid)
        self._connection.sendall(credential + b"\n")
        for descriptor in files.values():
            for piece in _pieces(descriptor):
                self._connection.settimeout(timeout)
                self._connection.sendall(piece)

    def next(self, timeout: float) -> dict[str, Any]:
        text = ""
        while True:
            line = self._lines.next(timeout)
            try:
                proved = self._munge.decode(line)
                reply = protocol.decode(proved.text)
            except (NotPermitted, UsageError) as error:
                raise UpstreamFailed("what answers is not the gateway", error.message) from error
            if (
                proved.uid != self._gateway_uid
                or reply.get("nonce") != self._nonce
                or reply.get("count") != self._count
            ):
                raise UpstreamFailed("what answers is not the gateway", "it could not prove it")
            self._count += 1
            text += str(reply.get("text", ""))
            if len(text) > protocol.MAX_EVENT:
                raise UpstreamFailed("the gateway's answer is too large")
            if reply.get("last"):
                return protocol.decode(text.encode())


def _pieces(descriptor: int) -> Iterator[bytes]:
    """A file from its beginning, as long as it was when it was opened: the size was announced."""
    at, size = 0, os.fstat(descriptor).st_size
    while at < size:
        piece = os.pread(descriptor, min(_PIECE, size - at), at)
        if not piece:
            raise ImageInvalid("the image's file became shorter")
        at += len(piece)
        yield piece


def _read_line(connection: socket.socket, most: int, seconds: float) -> tuple[bytes, bytes]:
    """A line, and what came after it already. Raises UsageError, TimedOut."""
    deadline = time.monotonic() + seconds
    text = b""
    while b"\n" not in text:
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            piece = connection.recv(1 << 16)
        except TimeoutError as error:
            raise TimedOut(f"no request within {seconds:.0f} s") from error
        if not piece:
            raise UsageError("request is cut off")
        text += piece
        if len(text) > most and b"\n" not in text[:most]:
            raise UsageError(f"request is larger than {protocol.MAX_REQUEST} bytes")
    line, _, rest = text.partition(b"\n")
    return line, rest
