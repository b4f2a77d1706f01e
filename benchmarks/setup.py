"""Times setupRoot and unsetupRoot on a node, next to a bare interpreter and their system calls without Python.

A Debian image in squashfs, three site file systems, two volumes. The five programs take turns, each started from inside
the node, so no figure includes a shell or entering the node. With `--cold`, the software is on a file system
on which each operation takes a millisecond (benchmarks/cold.py).
"""

from __future__ import annotations

import statistics
from pathlib import Path

import click

from benchmarks import cold, replay
from benchmarks.rigs import step_commands, temporary_rig
from benchmarks.turns import in_turns, show
from tests.node.rig import Rig
from udi.commandline import run
from udiroot.plan import NodePlan, PlanMount
from xcsim.debian import cache_option, debian_tree

_STEPS = ("setupRoot", "unsetupRoot")


@click.command()
@click.option("--rounds", default=40, show_default=True, help="Number of rounds.")
@cache_option
@click.option("--cold", "slow", is_flag=True, help="Put the software on a slow file system.")
def main(rounds: int, cache: Path, slow: bool) -> None:
    """Measure setupRoot and unsetupRoot, and print the medians.

    Each step is also shown as a multiple of a bare interpreter and the step's own system calls.
    """
    with temporary_rig() as rig:
        if slow:
            cold.measure(rig, min(rounds, 10))
        else:
            _show(_measure(rig, debian_tree(cache), rounds), rounds)


def _show(times: dict[str, list[float]], rounds: int) -> None:
    show(times, rounds)
    for step in _STEPS:
        ratios = [
            choose(times[step]) / (choose(times["bare interpreter"]) + choose(times[_calls_of(step)]))
            for choose in (statistics.median, min)
        ]
        figures = f"{ratios[0]:.2f} times a bare interpreter and its system calls ({ratios[1]:.2f} by the minimum)"
        print(f"{step} takes {figures}")


def _calls_of(step: str) -> str:
    return f"system calls of {step}, in C"


def _measure(rig: Rig, tree: Path, rounds: int) -> dict[str, list[float]]:
    steps = dict(zip(_STEPS, step_commands(rig, _plan(rig, tree)), strict=True))
    commands = {"bare interpreter": [*rig.site.node.python, "-I", "-S", "-c", "pass"], **steps}
    for step, argv in steps.items():
        program = rig.directory / f"software/{step}"
        replay.compile_replay(_trace(rig, argv), program)
        commands[_calls_of(step)] = [f"/lus/software/{step}"]
    return in_turns(rig, commands, rounds)


def _plan(rig: Rig, tree: Path) -> NodePlan:
    name = "de" * 32
    rig.make_image("squashfs", name, tree)
    (rig.directory / "scratch/alice/in").mkdir()
    return rig.plan(
        image_path=f"/lus/udi/images/{name}.squashfs",
        sites=tuple(PlanMount(path, path, False) for path in ("/scratch", "/projects", "/home")),
        volumes=(PlanMount("/scratch/alice", "/output", False), PlanMount("/scratch/alice/in", "/mnt", True)),
    )


def _trace(rig: Rig, argv: list[str]) -> str:
    """A step's system calls, as recorded by strace, which is on the shared root."""
    trace = rig.directory / "software/trace"
    words = [*rig.site.node.python[:-1], "/dsl/usr/bin/strace", *replay.STRACE, "-o", "/lus/software/trace"]
    rig.node.run([*words, *argv], check=True)
    return trace.read_text()


if __name__ == "__main__":
    run(main, "benchmarks.setup")
