"""Compute nodes that set the image up by our own setupRoot and run the program inside, entered by chroot."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.pynamic.image import ARGV
from tests.node.rig import ALICE, NID, Rig
from udiroot import kernel as node_kernel
from udiroot.errors import SetupFailed
from xcsim import kernel

STORE = "/bench"
"""Where a node has the store that is measured."""
_JOB = "1.sdb"
_FIRST_NID = 70000 + NID % 1000 * 20
"""Loop devices are the machine's, and have the node's number in their names."""
_SECONDS = 3600.0
_LAUNCH = """
import json, os, sys, time
order = json.load(sys.stdin)
reader, writer = os.pipe()
time.sleep(max(0, order["at"] - time.monotonic()))
begun = time.monotonic()
child = os.fork()
if child == 0:
    os.dup2(writer, 1)
    os.chroot(order["root"])
    os.chdir("/")
    os.setgroups(order["groups"])
    os.setgid(order["gid"])
    os.setuid(order["uid"])
    os.execve(order["argv"][0], order["argv"], {"PATH": "/usr/bin:/bin", "HOME": "/"})
os.close(writer)
with os.fdopen(reader) as stream:
    out = stream.read()
_, status, usage = os.wait4(child, 0)
print(json.dumps([begun, status, out, usage.ru_utime + usage.ru_stime]))
"""
"""On the node: start the program inside, at a given time where many start together, and say when that was."""


@dataclass(frozen=True)
class Timing:
    """One run of the program: when it was started and when it ended (CLOCK_MONOTONIC), and the seconds of its parts."""

    begun: float
    start: float
    imports: float
    visit: float
    calls: int
    processor: float = 0.0
    """Seconds of a core, where they are known."""

    @property
    def total(self) -> float:
        return self.start + self.imports + self.visit


def timing(begun: float, text: str, processor: float = 0.0) -> Timing:
    """Read what the program printed. Raises SetupFailed where that is not its line."""
    try:
        told = json.loads(text)
        started, imported, ended = told["started"], told["imported"], told["ended"]
        return Timing(begun, started - begun, imported - started, ended - imported, told["calls"], processor)
    except (ValueError, KeyError, TypeError) as error:
        raise SetupFailed(f"the measured program did not run: it printed {text[-300:]!r}") from error


class Node:
    """One node; a store is shown to it, an image set up from it, and the program run."""

    def __init__(self, directory: Path, number: int = 0) -> None:
        self._rig = Rig(directory, nid=_FIRST_NID + number)
        self._rig.node.run(["/bin/mkdir", STORE], check=True)

    def close(self) -> None:
        self._rig.close()

    @contextlib.contextmanager
    def sees(self, directory: Path) -> Iterator[None]:
        """Show it a directory of this machine, with the mount that it lies on."""
        tree = node_kernel.open_tree(str(directory), recursive=False)
        try:
            child = os.fork()
            if child == 0:
                status = 1
                with contextlib.suppress(OSError):
                    with open(f"/proc/{self._rig.node.pid}/ns/mnt") as there:
                        kernel.setns(there.fileno())
                    node_kernel.move_mount(tree, STORE)
                    status = 0
                os._exit(status)
            if os.waitpid(child, 0)[1]:
                raise SetupFailed(f"the node does not see {directory}")
        finally:
            os.close(tree)
        try:
            yield
        finally:
            self._rig.node.run(["/bin/umount", STORE], check=True)

    @contextlib.contextmanager
    def has(self, image_format: str, image: str) -> Iterator[float]:
        """Set up a root with an image of the store, given by its name there; the seconds that it took."""
        plan = self._rig.plan(
            job=_JOB, image_format=image_format, image_path=f"{STORE}/{image}", sites=(), volumes=(), allowed=()
        )
        began = time.monotonic()
        report = self._rig.set_up(plan)
        if not report.ok:
            raise SetupFailed(f"set-up failed: {report.words}")
        try:
            yield time.monotonic() - began
        finally:
            done = self._rig.tear_down(_JOB)
            if not done.ok:
                raise SetupFailed(f"teardown failed: {done.words}")

    def run(self, at: float = 0.0) -> Timing:
        """Run the program as the job's user; not before the time `at`."""
        site = self._rig.site
        order = {
            "at": at, "root": site.node.root, "argv": list(ARGV),
            "uid": ALICE.uid, "gid": ALICE.gid, "groups": list(ALICE.groups),
        }  # fmt: skip
        words = [*site.node.python, "-I", "-S", "-c", _LAUNCH]
        done = self._rig.node.run(words, input=json.dumps(order), timeout=_SECONDS, check=True)
        begun, status, text, processor = json.loads(done.stdout)
        if status:
            raise SetupFailed(f"the measured program failed: {done.stderr[-300:]}")
        return timing(begun, text, processor)


def run_together(nodes: Sequence[Node]) -> list[Timing]:
    """Run the program on all nodes, started at the same time."""
    at = time.monotonic() + 0.5 + 0.2 * len(nodes)  # each node's own interpreter has started by then
    with ThreadPoolExecutor(len(nodes)) as several:
        return list(several.map(lambda node: node.run(at), nodes))
