"""Ports of this host for services of machines and of tests: no two of them get the same."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from pathlib import Path

_LOWEST, _BLOCK = 10_000, 100
_LEAST_END = 20_000
"""Where the kernel may take nearly all ports for connections, those below this are used nevertheless."""


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens, another one at each call.

    It is not one of those that the kernel takes for connections, which it might do before the service listens, or while
    that is being restarted. No other process gets it here before this one has ended.
    """
    return next(port for port in _ports if _is_free(port))


def _of_own_blocks() -> Iterator[int]:
    """The process that has bound a name of the kernel's has the ports that go by it."""
    end = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    blocks = list(range(_LOWEST, max(end, _LEAST_END) - _BLOCK, _BLOCK))
    random.SystemRandom().shuffle(blocks)
    for first in blocks:
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0xcsim-ports-{first}")
        except OSError:  # another process has it
            claim.close()
            continue
        _claims.append(claim)
        yield from range(first, first + _BLOCK)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


_claims: list[socket.socket] = []
_ports = _of_own_blocks()
