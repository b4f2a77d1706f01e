#!/usr/bin/python3 -IS
"""The stand-in for the Cray or Torque command under whose name it was called: a client of the machine's daemon.

It sends its name, working directory, arguments and environment with its three descriptors; the daemon writes to those
itself and answers with the exit status. It imports `_socket` only, since hooks call these commands many times.
"""

import _socket
import os
import sys

SOCKET = "/run/xcsim.sock"
_SIGNALS = (1, 2, 3, 6, 10, 12, 15)  # HUP INT QUIT ABRT USR1 USR2 TERM (cray-reference A8)


def call(name: str, arguments: list[str], environment: list[bytes]) -> int:
    """Send one request, wait until it is done, and return the exit status."""
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        connection.connect(SOCKET)
    except OSError as error:
        sys.stderr.write(f"{name}: cannot reach the machine: {error.strerror}\n")
        return 1
    words = [os.fsencode(word) for word in (name, os.getcwd(), str(len(arguments)), *arguments)] + environment
    body = b"".join(len(word).to_bytes(4, "big") + word for word in words)
    try:
        answer = _answer(connection, body, signals=name == "aprun")
    except OSError:  # the machine was restarted
        answer = b""
    if not answer:
        sys.stderr.write(f"{name}: the machine closed the connection\n")
        return 1
    return int(answer)


def _answer(connection: _socket.socket, body: bytes, *, signals: bool) -> bytes:
    """The exit status, as a line; empty where the machine has closed the connection."""
    three = b"".join(number.to_bytes(4, sys.byteorder) for number in (0, 1, 2))
    connection.sendmsg([len(body).to_bytes(4, "big")], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, three)])
    connection.sendall(body)
    if signals:
        _forward_signals(connection)
    answer = b""
    while not answer.endswith(b"\n"):
        got = connection.recv(16)
        if not got:
            return b""
        answer += got
    return answer


def _forward_signals(connection: _socket.socket) -> None:
    import signal

    def forward(number: int, _: object) -> None:
        try:  # noqa: SIM105 - contextlib would be one more import
            connection.sendall(bytes([number]))
        except OSError:
            pass  # the application has ended, and its exit status is on its way

    for number in _SIGNALS:
        signal.signal(number, forward)


if __name__ == "__main__":
    environment = [name + b"=" + value for name, value in os.environb.items()]
    sys.exit(call(os.path.basename(sys.argv[0]), sys.argv[1:], environment))
