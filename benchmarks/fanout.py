"""What the hooks of a job cost by themselves, by its number of nodes: time, and memory at its highest.

    python -m benchmarks.fanout [--nodes 4,10,100,1000,10000,50000] [--slots 1] [--rounds 5]

Installs the package, not editable, into a virtual environment, as a site would, and runs the prologue and the epilogue
as Torque's wrapper starts them: it has asked qstat for the job, and passes the answer on where that is not too long for
a variable. The commands of Torque and Cray are one compiled program (`answer.c`), since those are compiled, too, and it
prints at once what was made before: for `apstat` a line for each slot, for `xtxqtcmd` the reports of all nodes. So the
time is that of the hook itself and of starting one program for each command. Each round runs a bare interpreter, too; a
ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from benchmarks.submit import install
from tests.unit.cray_standins import StandIns
from torque_hooks.prologue import QSTAT_ANSWER
from udi.commandline import run
from udiroot.errors import UpstreamFailed

_JOB = "123.sdb"
_HOOK = "import os, sys; sys.path.append({path!r}); from admin.entry.torque import {hook}; os._exit({hook}())"
"""The hook ends as Torque's wrapper ends it."""
_END = ("11", "nodes=2", "cput=0", "batch", "", "0", "/x.SC")
"""What the epilogue is told after the job's name."""
_LONGEST_ANSWER = 100_000
"""What of qstat's the wrapper passes on."""
_FIRST = 12
"""The lowest nid."""
_COMMANDS = ("qstat", "apstat", "xtxqtcmd")
_ROWS = """\
 ResId     ApId From           Arch   PEs N d Memory State
   524  5385733 batch:123      XT     4 2 1   1024 conf,claim
"""
_MILLISECONDS = "1200 1210 1190 1305 1240 1188 1201"
"""Of setups that differ, as those of real nodes do."""


@dataclass(frozen=True)
class Cost:
    """Of one program: seconds until it ended, and MiB at most."""

    seconds: float
    mebibytes: float


def describe(cray: StandIns, count: int, slots: int) -> None:
    """Give the stand-ins a job of so many nodes."""
    nids = range(_FIRST, _FIRST + count)
    lines = (f"    PE {pe}, cmd 0, nid {nid}, CPU 0x1, map 0x1, accels 0\n" for pe, nid in _slots(nids, slots))
    cray.tell("apstat-r.out", _ROWS)
    cray.tell("apstat.out", "Reservation detail\nBatch System ID = 123.sdb\n" + "".join(lines))
    times = _MILLISECONDS.split()
    reports = (
        f"UDI-REPORT NONCE {nid} ok {times[nid % len(times)]} 0 - - clean\n"
        f"Reply (complete) from nid{nid:05d} exit code: 0\n"
        for nid in nids
    )
    cray.tell("xtxqtcmd.out", "".join(reports))
    hosts = "+".join(f"{nid}/0-{slots - 1}" for nid in nids)
    cray.qstat_job("PBS_O_HOME=/root,UDI=debian:12", exec_host=hosts)


def _compile(program: Path) -> None:
    subprocess.run(["gcc", "-O2", "-Wall", "-o", program, Path(__file__).with_name("answer.c")], check=True)


def _slots(nids: Sequence[int], slots: int) -> Iterator[tuple[int, int]]:
    for place, nid in enumerate(nids):
        for slot in range(slots):
            yield place * slots + slot, nid


def cost(argv: Sequence[str], environment: Mapping[str, str]) -> Cost:
    """Run a program that must succeed."""
    began = time.perf_counter()
    quiet = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1)]
    child = os.posix_spawn(argv[0], list(argv), environment, file_actions=quiet)
    _, status, usage = os.wait4(child, 0)
    if status:
        raise UpstreamFailed(f"{argv[-1]} ended with status {status}")
    return Cost(time.perf_counter() - began, usage.ru_maxrss / 1024)


def measure(python: Path, cray: StandIns, rounds: int) -> dict[str, list[Cost]]:
    """What each program cost in each round, by its name."""
    path = str(Path(click.__file__).parents[1])
    config = ["--config", str(cray.config_path)]
    job = [_JOB, "root", "root", "run"]
    programs = {
        "interpreter": ["-c", "pass"],
        "prologue": ["-c", _HOOK.format(path=path, hook="prologue"), *config, *job, "nodes=2:ppn=2", "batch", ""],
        "epilogue": ["-c", _HOOK.format(path=path, hook="epilogue"), *config, *job, *_END],
    }
    environment = {"PATH": "/usr/bin:/bin"}
    answer = (cray.bin / "qstat.out").read_text()
    if len(answer) < _LONGEST_ANSWER:
        environment[QSTAT_ANSWER] = answer
    found: dict[str, list[Cost]] = {name: [] for name in programs}
    for number in range(rounds + 1):
        for name, arguments in programs.items():
            spent = cost([str(python), "-I", *arguments], environment)
            if number:  # the first one fills the caches
                found[name].append(spent)
    return found


def show(rows: Sequence[tuple[int, dict[str, list[Cost]]]]) -> None:
    """Print the table."""
    table = Table("nodes", "hook", "seconds", "times an interpreter", "MiB")
    for count, found in rows:
        for name in ("prologue", "epilogue"):
            ratios = [ours.seconds / bare.seconds for ours, bare in zip(found[name], found["interpreter"], strict=True)]
            table.add_row(
                f"{count}",
                name,
                f"{statistics.median(one.seconds for one in found[name]):.3f}",
                f"{statistics.median(ratios):.1f}",
                f"{max(one.mebibytes for one in found[name]):.0f}",
            )
    Console().print(table)


@click.command()
@click.option("--nodes", default="4,10,100,1000,10000,50000", show_default=True, help="Numbers of nodes.")
@click.option("--slots", default=1, show_default=True, help="Slots of the job on each node.")
@click.option("--rounds", default=5, show_default=True, help="Number of rounds.")
@click.option("--python", default="/usr/bin/python3", show_default=True, help="The interpreter of the job hosts.")
def main(nodes: str, slots: int, rounds: int, python: str) -> None:
    """Measure what the hooks cost by themselves, and print a table of medians."""
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        installed = install(python, work)
        site = work / "site"
        site.mkdir()
        cray = StandIns(site)
        for name in _COMMANDS:
            _compile(cray.bin / name)
        text = cray.config_path.read_text().replace("_deadline = 2\n", "_deadline = 60\n")
        cray.config_path.write_text(text.replace("_deadline = 12\n", "_deadline = 300\n"))
        for count in map(int, nodes.split(",")):
            describe(cray, count, slots)
            rows.append((count, measure(installed, cray, rounds)))
    show(rows)


if __name__ == "__main__":
    run(main, "benchmarks.fanout")
