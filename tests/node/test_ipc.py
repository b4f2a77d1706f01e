"""What a job leaves in the kernel and in no file system: gone with the job, and nobody else's touched."""

from __future__ import annotations

import pytest

from tests.node.rig import ALICE, BOB, Rig
from udiroot.plan import PlanUser

_MAKE = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def made(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
made(libc.mq_open(b"/queue%d" % os.getuid(), os.O_CREAT | os.O_RDWR, 0o600, None))
made(libc.shmget(os.getuid(), 4096, 0o1600))
made(libc.msgget(os.getuid(), 0o1600))
made(libc.semget(os.getuid(), 1, 0o1600))
"""
_LOOK = "mkdir -p /tmp/q && mount -t mqueue q /tmp/q && ls /tmp/q; umount /tmp/q; rmdir /tmp/q; cat /proc/sysvipc/*"


def _make(rig: Rig, user: PlanUser) -> None:
    rig.node.run([*rig.site.node.python, "-I", "-c", _MAKE], uid=user.uid, gid=user.gid, groups=user.groups, check=True)


def _left(rig: Rig, user: PlanUser) -> int:
    found, creator = 0, 0
    for line in rig.node.run(["/bin/sh", "-c", _LOOK], check=True).stdout.splitlines():
        fields = line.split()
        if "cuid" in fields:
            creator = fields.index("cuid")
        elif line == f"queue{user.uid}" or (creator and fields[creator] == str(user.uid)):
            found += 1
    return found


@pytest.mark.parametrize("twice", [False, True])
def test_queues_and_segments_of_the_job_s_user_go_with_it(rig: Rig, twice: bool) -> None:
    _make(rig, BOB)
    for _ in range(1 + twice):
        assert rig.set_up(rig.plan()).ok
        _make(rig, ALICE)
        assert _left(rig, ALICE) == 4
        assert rig.tear_down().ok
        assert _left(rig, ALICE) == 0
    assert _left(rig, BOB) == 4
    assert rig.set_up(rig.plan(user=BOB)).ok
    assert rig.tear_down().ok
    assert _left(rig, BOB) == 0
