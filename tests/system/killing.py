"""The node software, killed or failing at a chosen call of its set-up, on one node of a whole machine.

Put between `node.python` and the start line by the site's configuration; the shipped zip is untouched. Which call, and
how, is read from a file of the shared root.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.system.cray import Cray
from udi.nodeconfig import NodeConfig

_DIRECTORY = "/opt/udi-killing"

_SHIM = """
import sys
start, rest = sys.argv[4], sys.argv[5:]
sys.argv = ["-c", *rest]
with open("/etc/xcsim/nid") as own, open("/dsl/opt/udi-killing/where") as chosen:
    nid, (wanted, point, mode) = own.read().strip(), chosen.read().split()
before, run = start.rsplit("; from ", 1)
exec(before)
if nid == wanted and rest[:1] == ["setupRoot"]:
    import fcntl, os
    import udiroot.kernel as kernel
    left = int(point)
    def watched(module, name):
        real = getattr(module, name)
        def call(*args, **kwargs):
            global left
            if name == "open" and not args[1] & (os.O_CREAT | os.O_RDWR | os.O_WRONLY):
                return real(*args, **kwargs)
            left -= 1
            if left:
                return real(*args, **kwargs)
            if mode == "fail":
                raise OSError(28, os.strerror(28))
            if mode == "hang":
                import time
                time.sleep(60)
            if mode == "after":
                real(*args, **kwargs)
            os.kill(os.getpid(), 9)
        setattr(module, name, call)
    for module, names in ((kernel, "mount umount"), (os, "mkdir rmdir link unlink symlink open"), (fcntl, "ioctl")):
        for name in names.split():
            watched(module, name)
exec("from " + run)
"""


@contextmanager
def killed(cray: Cray, nid: int, point: int, mode: str, **torque: object) -> Iterator[None]:
    """Set-up on `nid` is killed `before` or `after` its call number `point`, or that call will `fail` or `hang`."""
    directory = cray.machine.path(_DIRECTORY)
    directory.mkdir(exist_ok=True)
    (directory / "shim.py").write_text(_SHIM)
    (directory / "where").write_text(f"{nid} {point} {mode}\n")
    python = [*NodeConfig().python, "-I", "-S", f"/dsl{_DIRECTORY}/shim.py"]
    with cray.configured({"node": {"python": python}, "torque": torque}):
        yield
