"""Times what the private sshd adds: set-up and teardown of a node with it and without, keys, and one command over it.

The tiny image of the tests; the four commands take turns, each started from inside the node.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import click

from benchmarks.rigs import step_commands, temporary_rig
from benchmarks.turns import in_turns, show
from tests.node.pair import Pair
from udi.commandline import run
from udiroot.errors import UpstreamFailed


@click.command()
@click.option("--rounds", default=40, show_default=True, help="Number of rounds.")
def main(rounds: int) -> None:
    """Measure what the private sshd adds, and print the medians."""
    with temporary_rig() as rig:
        pair = Pair(rig)
        try:
            times = _nodes(pair, rounds) | _ssh(pair, rounds)
        finally:
            pair.close()
    show(times, rounds)


def _nodes(pair: Pair, rounds: int) -> dict[str, list[float]]:
    rig = pair.nodes[412]
    commands: dict[str, list[str]] = {}
    for kind, keys in (("without sshd", None), ("with sshd", pair.keys())):
        up, down = step_commands(rig, pair.plan(keys))
        commands |= {f"setupRoot, {kind}": up, f"unsetupRoot, {kind}": down}
    return in_turns(rig, commands, rounds)


def _ssh(pair: Pair, rounds: int) -> dict[str, list[float]]:
    keys = _timed(pair.keys, rounds)
    pair.set_up(pair.plan(pair.keys()))
    script = f"for n in $(seq {rounds}); do /opt/udi/bin/ssh nid00413 true || exit 1; done"
    began = time.perf_counter()
    done = pair.nodes[412].inside(script)
    took = time.perf_counter() - began
    pair.tear_down()
    if done.returncode:
        raise UpstreamFailed(f"ssh failed: {done.stderr.strip()}")
    return {"keys of a job, on the MOM node": keys, "ssh nid00413 true (mean)": [took / rounds]}


def _timed(step: Callable[[], object], rounds: int) -> list[float]:
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    return times


if __name__ == "__main__":
    run(main, "benchmarks.ssh")
