"""A cold start of the node software, whole: every operation on the shared root from the start of the interpreter on.

    python -m benchmarks.shared_root [--rounds 5]

The node's shared root, with everything that starts there, is on the slow file system, each time newly mounted: the
dynamic loader, Python, its libraries, its standard library, our zip. Then the same out of one squashfs file of that
file system, which holds a Python and our zip and is mounted by loop: what a site can do about it, by `node.python` and
`node.zip`.
"""

from __future__ import annotations

import secrets
import shlex
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from benchmarks.pynamic.image import make_tree, squashfs
from benchmarks.slowfs import Counts, Mounting, Service, SlowFileSystems
from tests.node.rig import IDENTITY_FILE, Rig
from udi import nodecommand, nodestart
from udi.commandline import run

_LATENCY = 0.001
_SHARED, _SLOW, _RUNTIME = "/dsl", "/slow", "/runtime"
"""On the node: the shared root, the directory with the squashfs file, and where that is mounted."""
_GROUPS = {
    "loader and libraries": ("/usr/lib/x86_64-linux-gnu", "/lib"),
    "Python's program": ("/usr/bin", "/usr/pyvenv.cfg"),
    "its standard library": ("/usr/lib/python3",),
}
"""The beginnings of paths; the longest counts."""


@click.command()
@click.option("--rounds", default=5, show_default=True, help="Number of rounds.")
def main(rounds: int) -> None:
    """Count what a cold start of the node software reads from the shared root, and print a table."""
    with tempfile.TemporaryDirectory(prefix="udi-bench-") as directory:
        work = Path(directory)
        work.chmod(0o755)
        rig = Rig(work / "rig")
        try:
            _show(rig, work, rounds)
        finally:
            rig.close()


def _show(rig: Rig, work: Path, rounds: int) -> None:
    rig.node.run(["/bin/mkdir", _SLOW, _RUNTIME], check=True)
    table = Table("start", "from", "operations", *_GROUPS, "our zip", "read MiB", "median ms")
    for kind, made in (("shared root", _from_shared_root), ("one squashfs file", _from_squashfs)):
        with made(rig, work) as (source, target, python, archive):
            taken: dict[str, list[tuple[Counts, float, Mapping[str, int]]]] = {}
            for _ in range(rounds):
                for name, argv in _starts(rig, python, archive).items():
                    taken.setdefault(name, []).append(_cold(rig, work, source, target, argv))
        for name, samples in taken.items():
            counts, _, groups = samples[-1]
            split = [str(groups[each]) if target == _SHARED else "" for each in (*_GROUPS, "our zip")]
            middle = statistics.median(each[1] for each in samples) * 1000
            operations = round(statistics.median(each[0].operations for each in samples))
            table.add_row(name, kind, str(operations), *split, f"{counts.read / (1 << 20):.1f}", f"{middle:.0f}")
    Console(width=140).print(table)


def _starts(rig: Rig, python: list[str], archive: str) -> dict[str, list[str]]:
    """A bare interpreter, and the two steps as a node is told to do them, with another Python and zip."""
    plan = rig.plan(programs=())
    path, sha256 = rig.send(plan)
    nonce = secrets.token_hex(16)
    site = rig.site
    steps = {
        "setupRoot": nodecommand.setup_command(site, IDENTITY_FILE, path, sha256, nonce),
        "unsetupRoot": nodecommand.teardown_command(site, IDENTITY_FILE, plan.job, nonce),
    }
    lines = [
        nodestart.start_line(each, "udiroot.commands", nodecommand.START_SIGN) for each in (site.node.zip, archive)
    ]
    usual, wanted = shlex.join(site.node.python), shlex.join(python)
    found = {"python3 -I -S -c pass": [*python, "-I", "-S", "-c", "pass"]}
    for name, command in steps.items():
        line = command.replace(usual, wanted).replace(shlex.quote(lines[0]), shlex.quote(lines[1]))
        found[name] = shlex.split(line)
    return found


@contextmanager
def _from_shared_root(rig: Rig, work: Path) -> Iterator[tuple[Path, str, list[str], str]]:
    """What to serve, where, the words that start Python there, and our zip."""
    yield Path("/"), _SHARED, list(rig.site.node.python), f"{_SHARED}{rig.directory}/software/udi.zip"


@contextmanager
def _from_squashfs(rig: Rig, work: Path) -> Iterator[tuple[Path, str, list[str], str]]:
    (work / "nothing").mkdir()
    tree = make_tree(work / "nothing", work / "tree")
    shutil.copy(rig.directory / "software/udi.zip", tree / "udi.zip")
    served = work / "served"
    served.mkdir()
    squashfs("gzip:1", 128).make(tree, served / "runtime")
    loader = next(path for path in (tree / "usr/lib64").iterdir() if path.name.startswith("ld-linux"))
    libraries = ":".join(f"{_RUNTIME}/usr/lib/{each}" for each in ("x86_64-linux-gnu", "aarch64-linux-gnu"))
    python = [f"{_RUNTIME}/usr/lib64/{loader.name}", "--library-path", libraries, f"{_RUNTIME}/usr/bin/python3"]
    yield served, _SLOW, python, f"{_RUNTIME}/udi.zip"


def _cold(rig: Rig, work: Path, source: Path, target: str, argv: list[str]) -> tuple[Counts, float, Mapping[str, int]]:
    """What reached the file system, the seconds, and the operations by group of paths."""
    trace = work / "trace"
    trace.unlink(missing_ok=True)
    with SlowFileSystems(source, Service(_LATENCY), [Mounting(target, rig.node.pid)], trace) as slow:
        began = time.perf_counter()
        if target == _SLOW:
            rig.node.run(["/bin/mount", "-o", "loop,ro", f"{_SLOW}/runtime", _RUNTIME], check=True)
        rig.node.run(argv, check=True)
        seconds = time.perf_counter() - began
        if target == _SLOW:
            rig.node.run(["/bin/umount", _RUNTIME], check=True)
        return slow.counts(), seconds, grouped(trace.read_text(), str(rig.directory))


def grouped(trace: str, ours: str) -> dict[str, int]:
    """How many operations of a server's trace go to which group of paths; those below or above `ours` are our zip's."""
    found = dict.fromkeys((*_GROUPS, "our zip"), 0)
    beginnings = {start: name for name, starts in _GROUPS.items() for start in starts}
    for line in trace.splitlines():
        path = line.split(" ", 3)[3]
        fitting = [start for start in beginnings if path.startswith(start)]
        if path and path != "/" and (path.startswith(ours) or ours.startswith(path)):
            found["our zip"] += 1
        else:
            found[beginnings[max(fitting, key=len)] if fitting else "loader and libraries"] += 1
    return found


if __name__ == "__main__":
    run(main, "benchmarks.shared_root")
