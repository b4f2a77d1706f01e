"""Times setupRoot and unsetupRoot on a node, beside a bare interpreter and their system calls without Python.

A Debian image in squashfs, three site file systems, two volumes. The five programs take turns, each started from inside
the node, so neither a shell nor the way into the node is in any figure. With `--cold`, the software is on a file system
on which each operation takes a millisecond (benchmarks/cold.py).
"""

from __future__ import annotations

import argparse
import secrets
import shlex
import statistics
import tempfile
from pathlib import Path

from benchmarks import cold, replay
from benchmarks.turns import in_turns, show
from tests.node.rig import Rig
from udi import nodecommand
from udiroot.plan import NodePlan, PlanMount
from xcsim.debian import debian_tree

_STEPS = ("setupRoot", "unsetupRoot")


def main() -> None:
    """Print the medians, and each step as a multiple of a bare interpreter and the step's own system calls."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--cache", type=Path, default=Path(".cache"))
    parser.add_argument("--cold", action="store_true", help="the software on a slow file system")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="udi-bench-") as folder:
        Path(folder).chmod(0o755)
        rig = Rig(Path(folder) / "rig")
        try:
            if options.cold:
                cold.measure(rig, min(options.rounds, 10))
            else:
                _show(_measure(rig, debian_tree(options.cache), options.rounds), options.rounds)
        finally:
            rig.close()


def _show(times: dict[str, list[float]], rounds: int) -> None:
    show(times, rounds)
    for step in _STEPS:
        ratios = [
            choose(times[step]) / (choose(times["bare interpreter"]) + choose(times[_calls_of(step)]))
            for choose in (statistics.median, min)
        ]
        print(
            f"{step} takes {ratios[0]:.2f} times a bare interpreter and its system calls ({ratios[1]:.2f} by the least)"
        )


def _calls_of(step: str) -> str:
    return f"system calls of {step}, in C"


def _measure(rig: Rig, tree: Path, rounds: int) -> dict[str, list[float]]:
    steps = dict(zip(_STEPS, _commands(rig, _plan(rig, tree)), strict=True))
    commands = {"bare interpreter": [*rig.site.node.python, "-I", "-S", "-c", "pass"], **steps}
    for step, argv in steps.items():
        program = rig.folder / f"software/{step}"
        replay.compile_replay(_trace(rig, argv), program)
        commands[_calls_of(step)] = [f"/lus/software/{step}"]
    return in_turns(rig, commands, rounds)


def _plan(rig: Rig, tree: Path) -> NodePlan:
    name = "de" * 32
    rig.make_image("squashfs", name, tree)
    (rig.folder / "scratch/alice/in").mkdir()
    return rig.plan(
        image_path=f"/lus/udi/images/{name}.squashfs",
        sites=tuple(PlanMount(path, path, False) for path in ("/scratch", "/projects", "/home")),
        volumes=(PlanMount("/scratch/alice", "/output", False), PlanMount("/scratch/alice/in", "/mnt", True)),
    )


def _commands(rig: Rig, plan: NodePlan) -> tuple[list[str], list[str]]:
    path, sha256 = rig.send(plan)
    nonce = secrets.token_hex(16)
    return (
        shlex.split(nodecommand.setup_command(rig.site, path, sha256, nonce)),
        shlex.split(nodecommand.teardown_command(rig.site, plan.job, nonce)),
    )


def _trace(rig: Rig, argv: list[str]) -> str:
    """What strace, which is on the shared root, sees a step do."""
    seen = rig.folder / "software/trace"
    words = [*rig.site.node.python[:-1], "/dsl/usr/bin/strace", *replay.STRACE, "-o", "/lus/software/trace"]
    rig.node.run([*words, *argv], check=True)
    return seen.read_text()


if __name__ == "__main__":
    main()
