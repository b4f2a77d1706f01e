"""Becomes the scanner: with the inventory as its input, with limits, and without a network where the kernel lets us.

    python -m gateway.audit.confined INVENTORY DIRECTORY MEMORY SECONDS none|any WORD…

The inventory is expanded to a file without a name in the directory. The scanner runs as this account, which gets no
further rights by any program (no_new_privs). Whether it has no network is said on stderr before it starts, since an
account may not be allowed to have a network namespace (kernel.unprivileged_userns_clone, user.max_user_namespaces).
"""

from __future__ import annotations

import contextlib
import ctypes
import gzip
import os
import resource
import shutil
import sys
import zlib
from collections.abc import Sequence

CONFINED = "udi: no network"
"""The line on stderr."""
FAILED = 125
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_NO_NEW_PRIVS = 38
_EMPTY = os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC


def main(argv: Sequence[str]) -> int:
    """Only returns where the scanner could not be started."""
    inventory, directory, memory, seconds, network, *words = argv
    try:
        _open_input(inventory, directory)
        if network == "none" and _leave_network():
            os.write(2, f"{CONFINED}\n".encode())
        _limit(int(memory), int(seconds))
        os.execv(words[0], words)  # noqa: S606 - it is what this process becomes
    except (OSError, EOFError, zlib.error) as error:
        sys.stderr.write(f"{words[0]}: {error}\n")
    return FAILED


def _open_input(path: str, directory: str) -> None:
    """The inventory becomes standard input."""
    descriptor = os.open(directory, _EMPTY, 0o600)
    with gzip.open(path, "rb") as document, os.fdopen(os.dup(descriptor), "wb") as output:
        shutil.copyfileobj(document, output, 1 << 20)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.dup2(descriptor, 0)


def _leave_network() -> bool:
    """A network namespace of its own, where not even the host's loopback is. Its ids stay what they are."""
    user, group = os.geteuid(), os.getegid()
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWUSER | _CLONE_NEWNET):
        return False
    with contextlib.suppress(OSError):  # without a map, its own files are nobody's to it
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{user} {user} 1")
        _write("/proc/self/gid_map", f"{group} {group} 1")
    return True


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _limit(memory: int, seconds: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    for kind, most in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_CORE, 0)):
        _, hard = resource.getrlimit(kind)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
