"""Faults in the middle of set-up and teardown.

The node software is started by a line that counts every call that changes the node, and at a chosen one fails it, or
kills the process just before or just after it.

The software itself is the shipped zip, untouched; only the start line differs from the one in production.
"""

from __future__ import annotations

import secrets
import shlex
from dataclasses import dataclass

from tests.node.rig import Rig
from udiroot.plan import NodePlan
from udiroot.report import NodeReport

_SHIM = """
import os, sys
sys.path.insert(0, {archive!r})
import bundle
bundle.install({archive!r})
import fcntl
import udiroot.kernel as kernel
point, mode, number = {point}, {mode!r}, {number}
count = 0
def watched(module, name):
    real = getattr(module, name)
    def call(*args, **kwargs):
        global count
        if name == "open" and not args[1] & (os.O_CREAT | os.O_RDWR | os.O_WRONLY):
            return real(*args, **kwargs)
        count += 1
        if count != point:
            return real(*args, **kwargs)
        if mode == "fail":
            raise OSError(number, os.strerror(number), "injected at " + name)
        if mode == "before":
            os.kill(os.getpid(), 9)
        result = real(*args, **kwargs)
        os.kill(os.getpid(), 9)
        return result
    setattr(module, name, call)
for module, names in ((kernel, "mount umount"), (os, "mkdir rmdir link unlink symlink open"), (fcntl, "ioctl")):
    for name in names.split():
        watched(module, name)
import udiroot.commands
code = udiroot.commands.run(sys.argv[1:])
sys.stderr.write("POINTS %d\\n" % count)
sys.stderr.flush()
os._exit(code)
"""


@dataclass(frozen=True)
class Outcome:
    """How a run with a fault ended: the points that were passed (0 when killed), and the report if there was one."""

    points: int
    report: NodeReport | None
    killed: bool
    trace: str


def set_up(rig: Rig, plan: NodePlan, point: int = 0, mode: str = "none", number: int = 5) -> Outcome:
    """setupRoot with a fault at call `point` (0: none): `fail` with errno `number`, or a kill `before`/`after`."""
    path, sha256 = rig.send(plan)
    nonce = secrets.token_hex(16)
    words = ["setupRoot", "--run", plan.run, "--nid-file", rig.site.node.nid_file, path, sha256, nonce]
    return _run(rig, words, nonce, point, mode, number)


def tear_down(rig: Rig, job: str, point: int = 0, mode: str = "none", number: int = 5) -> Outcome:
    """unsetupRoot with a fault, as for `set_up`."""
    nonce = secrets.token_hex(16)
    node = rig.site.node
    words = ["unsetupRoot", "--root", node.root, "--run", node.run, "--nid-file", node.nid_file, "--job", job, nonce]
    return _run(rig, words, nonce, point, mode, number)


def _run(rig: Rig, words: list[str], nonce: str, point: int, mode: str, number: int) -> Outcome:
    shim = _SHIM.format(archive=rig.site.node.zip, point=point, mode=mode, number=number)
    command = shlex.join((*rig.site.node.python, "-I", "-S", "-c", shim, *words))
    done = rig.node.run(["/bin/sh", "-c", command])
    reports = [report for line in done.stdout.splitlines() if (report := NodeReport.parse(line, nonce))]
    points = [int(line.split()[1]) for line in done.stderr.splitlines() if line.startswith("POINTS ")]
    return Outcome(
        points[0] if points else 0, reports[0] if reports else None, done.returncode in (-9, 137), done.stderr
    )
