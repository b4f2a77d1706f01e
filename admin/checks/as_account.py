"""Doing one thing as another account, in a process of its own with a deadline.

A parallel file system that hangs holds its caller in the kernel, where no signal ends it. So a child does it, and is
left behind where it does not come back.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Sequence

from udi.oserrors import reason
from udiroot.errors import TimedOut, UdiError, UpstreamFailed

_MAX_ANSWER = 4096
_GOOD, _BAD = b"+", b"-"
_GRACE = 0.5
"""Seconds that a killed child has to end, before it is left behind."""


def as_account(uid: int, gid: int, action: Callable[[], str], seconds: float, *, groups: Sequence[int] = ()) -> str:
    """What `action` returns, in at most 4 KiB, called with the ids of an account and with no other groups than those.

    Raises UpstreamFailed with the reason where it raises OSError or a UdiError, TimedOut.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        _answer(uid, gid, groups, action, writer)
    os.close(writer)
    try:
        data = _read(reader, time.monotonic() + seconds)
    finally:
        os.close(reader)
        _end(child)
    if data is None:
        raise TimedOut(f"not within {seconds:.0f} seconds")
    text = data[1:].decode("utf-8", "replace")
    if data[:1] != _GOOD:
        raise UpstreamFailed(text or "the process that tried it died")
    return text


def _answer(uid: int, gid: int, groups: Sequence[int], action: Callable[[], str], writer: int) -> None:
    """In the child: it never returns."""
    kind, text = _BAD, ""
    try:
        if os.geteuid() == 0:
            os.setgroups(groups)
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
        kind, text = _GOOD, action()
    except OSError as error:
        text = f"{error.filename}: {reason(error)}" if error.filename else reason(error)
    except UdiError as error:
        text = error.message
    except BaseException as error:  # noqa: BLE001 - the parent's story must not go on here
        text = repr(error)
    finally:
        try:
            os.write(writer, (kind + text.encode("utf-8", "replace"))[:_MAX_ANSWER])
        finally:
            os._exit(0)


def _read(reader: int, end: float) -> bytes | None:
    """All that the child writes until it closes its end; None where the time is over before."""
    data = b""
    while True:
        ready, _, _ = select.select([reader], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            return None
        block = os.read(reader, _MAX_ANSWER)
        if not block:
            return data
        data += block


def _end(child: int) -> None:
    end = time.monotonic() + _GRACE
    os.kill(child, signal.SIGKILL)
    while os.waitpid(child, os.WNOHANG) == (0, 0) and time.monotonic() < end:
        time.sleep(0.01)
