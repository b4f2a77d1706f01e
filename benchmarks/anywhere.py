"""Times setupRoot and unsetupRoot with mounts in many places, as multiples of the same without them.

A Debian image in squashfs, three site file systems, two volumes; then with 20 more site file systems at places that the
image lacks, each in a directory of its own or together, with 300, and with an image that has 95,000 files in /etc. All
take turns, each started from inside the node.
"""

from __future__ import annotations

import statistics
from pathlib import Path

import click

from benchmarks.rigs import step_commands, temporary_rig
from benchmarks.turns import in_turns, show
from tests.node.rig import Rig, make_tree
from udi.commandline import run
from udiroot.plan import NodePlan, PlanMount
from xcsim.debian import cache_option, debian_tree

_USUAL = ("/scratch", "/projects", "/home")
_USR = ("lib", "bin", "share", "share/doc", "sbin", "local", "include", "share/man", "lib/x86_64-linux-gnu")
_OTHER = ("/etc/default", "/etc/init.d", "/boot", "/srv", "/root", "/media")
_VAR = ("lib", "cache", "log", "spool", "mail")
_SPREAD = (*(f"/usr/{name}" for name in _USR), *(f"/var/{name}" for name in _VAR), *_OTHER)
_MANY_FILES = 95_000


@click.command()
@click.option("--rounds", default=20, show_default=True, help="Number of rounds.")
@cache_option
def main(rounds: int, cache: Path) -> None:
    """Measure set-up and teardown with mounts in many places."""
    with temporary_rig() as rig:
        commands: dict[str, list[str]] = {}
        for name, plan in _plans(rig, debian_tree(cache)).items():
            up, down = step_commands(rig, plan)
            commands |= {f"{name}: set-up": up, f"{name}: teardown": down}
        times = in_turns(rig, commands, rounds)
    show(times, rounds)
    for name, values in times.items():
        usual = times[f"usual: {name.rpartition(': ')[2]}"]
        ratio = statistics.median(one / other for one, other in zip(values, usual, strict=True))
        print(f"{name:34}{ratio:8.2f} times the usual")


def _plans(rig: Rig, tree: Path) -> dict[str, NodePlan]:
    debian, crowded = "de" * 32, "be" * 32
    rig.make_image("squashfs", debian, tree)
    other = rig.directory / "crowded"
    make_tree(other)
    for number in range(_MANY_FILES):
        (other / f"etc/{number}").touch()
    rig.make_image("squashfs", crowded, other)
    (rig.directory / "scratch/alice/in").mkdir()
    together = [f"/usr/share/site/{number}/deep" for number in range(20)]
    many = [f"/usr/share/site{number % 50}/deep/{number}" for number in range(300)]
    return {
        "usual": _plan(rig, debian),
        "20 together": _plan(rig, debian, *together),
        "20 in 20 directories": _plan(rig, debian, *(f"{path}/new/deep" for path in _SPREAD)),
        "300": _plan(rig, debian, *many),
        "95,000 files in /etc": _plan(rig, crowded),
    }


def _plan(rig: Rig, image: str, *targets: str) -> NodePlan:
    return rig.plan(
        image_path=f"/lus/udi/images/{image}.squashfs",
        sites=(
            *(PlanMount(path, path, False) for path in _USUAL),
            *(PlanMount("/projects", target, True) for target in targets),
        ),
        volumes=(PlanMount("/scratch/alice", "/output", False), PlanMount("/scratch/alice/in", "/mnt", True)),
    )


if __name__ == "__main__":
    run(main, "benchmarks.anywhere")
