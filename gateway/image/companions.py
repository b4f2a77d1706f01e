"""Processes that do a part of a conversion: orders go to them, and answers come back, as messages.

What they do could be done by threads, if those did not wait for the interpreter lock again and again, for as long as
another one runs Python. Companions are started anew, not forked: a fork of a process with threads may wait forever for
a lock that a thread had. They end when their starter does, since nobody else has the other end of their socket.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence

from udi.oserrors import reason
from udiroot.errors import UpstreamFailed

WORTH = 8 << 20
"""Bytes from which on work is worth the start of a companion: one process does about as many meanwhile."""
_MOST = 1 << 16
"""Bytes of an answer at most."""


class Companion:
    """One of these processes."""

    def __init__(self, module: str, process: subprocess.Popen[bytes], messages: socket.socket) -> None:
        self._module = module
        self._process = process
        self._messages = messages

    def send(self, order: bytes, descriptors: Sequence[int] = ()) -> None:
        """Give an order, with open files that it is about. Raises UpstreamFailed when the process has ended."""
        try:
            socket.send_fds(self._messages, [order], descriptors)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise self._death() from error

    def answer(self) -> bytes:
        """Wait for its next answer. Raises UpstreamFailed when the process has ended."""
        try:
            answer = self._messages.recv(_MOST)
        except ConnectionResetError as error:
            raise self._death() from error
        if not answer:
            raise self._death()
        return answer

    def _death(self) -> UpstreamFailed:
        status = self._process.wait()
        how = f"exited with {status}" if status >= 0 else f"was terminated by signal {-status}"
        return UpstreamFailed(f"a process of the conversion ({self._module}) {how}", "see the gateway's log, and dmesg")


@contextlib.contextmanager
def companion(module: str, words: Sequence[str], inherited: Collection[int] = ()) -> Iterator[Companion]:
    """Start `module` with the descriptor of its socket, and `words`, as its arguments, and these open files. At the end
    it is killed, and has ended. Raises UpstreamFailed, OSError."""
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            process = _start([module, str(theirs.fileno()), *words], (theirs.fileno(), *inherited))
        try:
            yield Companion(module, process, ours)
        finally:
            process.kill()
            process.wait()


def _start(words: Sequence[str], inherited: Collection[int]) -> subprocess.Popen[bytes]:
    """It has our standard error only, and a terminal's interrupt is for us alone."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which is inherited
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-m", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=tuple(inherited),
        )
    except OSError as error:
        raise UpstreamFailed(f"cannot run {sys.executable}: {reason(error)}") from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
