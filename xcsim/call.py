"""One call of a stand-in: its caller, working directory, arguments, and the descriptors to answer on."""

import contextlib
import os
import pwd
import select
import socket
import struct
import threading
from dataclasses import dataclass, field
from pathlib import Path

_CREDENTIALS = struct.Struct("i2I")  # ids are unsigned


@dataclass
class Call:
    """What a stand-in sent. The caller's identity is from the kernel (SO_PEERCRED), not from the caller."""

    connection: socket.socket
    name: str
    cwd: str
    arguments: list[str]
    environment: dict[str, str]
    pid: int
    uid: int
    gid: int
    descriptors: tuple[int, int, int]
    _writing: threading.Lock = field(default_factory=threading.Lock)
    _closed: bool = False

    @property
    def groups(self) -> tuple[int, ...]:
        """The caller's groups: those of its process while that is alive, else those of its account."""
        try:
            for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
                if line.startswith("Groups:"):
                    return tuple(int(word) for word in line.split()[1:])
        except (FileNotFoundError, ProcessLookupError):
            pass
        return tuple(os.getgrouplist(self.user, self.gid))

    @property
    def user(self) -> str:
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)

    def write(self, text: str | bytes) -> None:
        """Write to the caller's stdout."""
        self._write(self.descriptors[1], text)

    def write_error(self, text: str | bytes) -> None:
        """Write to the caller's stderr."""
        self._write(self.descriptors[2], text)

    def _write(self, descriptor: int, text: str | bytes) -> None:
        raw = text.encode(errors="surrogateescape") if isinstance(text, str) else text
        with self._writing, contextlib.suppress(BrokenPipeError):
            while raw and not self._closed:
                raw = raw[os.write(descriptor, raw) :]

    def input(self) -> bytes:
        """Read all of the caller's stdin."""
        parts = []
        while part := os.read(self.descriptors[0], 65536):
            parts.append(part)
        return b"".join(parts)

    def signals(self, seconds: float) -> bytes:
        """Numbers of the signals that the stand-in forwards within this time. Raises EOFError if the caller is gone."""
        ready, _, _ = select.select([self.connection], [], [], seconds)
        if not ready:
            return b""
        try:
            got = self.connection.recv(64)
        except ConnectionResetError:
            got = b""
        if not got:
            raise EOFError
        return got

    def wait_gone(self, done: int | None = None) -> bool:
        """Wait until the caller is gone, or until the descriptor `done` is readable. True if the caller is gone."""
        watched = [self.connection.fileno(), *([] if done is None else [done])]
        while True:
            ready, _, _ = select.select(watched, [], [])
            if done is not None and done in ready:
                return False
            try:
                self.signals(0)
            except EOFError:
                return True

    def finish(self, code: int) -> None:
        """Return the exit status to the caller and close everything."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.sendall(f"{code}\n".encode())
        self.close()

    def close(self) -> None:
        """Close everything; output that is written afterwards is dropped."""
        with self._writing:
            if not self._closed:
                self._closed = True
                for descriptor in self.descriptors:
                    os.close(descriptor)
                self.connection.close()


def receive(connection: socket.socket) -> Call:
    """Read one request of the form that `standin.call` sends."""
    head, descriptors, _, _ = socket.recv_fds(connection, 4, 3)
    pid, uid, gid = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    if len(head) != 4 or len(descriptors) != 3:
        for descriptor in descriptors:
            os.close(descriptor)
        raise ConnectionError("a request without its three descriptors")
    body = b""
    while len(body) < int.from_bytes(head, "big"):
        part = connection.recv(65536)
        if not part:
            raise ConnectionError("a request that is cut short")
        body += part
    words = []
    while body:
        length = int.from_bytes(body[:4], "big")
        words.append(os.fsdecode(body[4 : 4 + length]))
        body = body[4 + length :]
    name, cwd, count, *rest = words
    arguments, pairs = rest[: int(count)], rest[int(count) :]
    environment = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    three = (descriptors[0], descriptors[1], descriptors[2])
    return Call(connection, name, cwd, arguments, environment, pid, uid, gid, three)
