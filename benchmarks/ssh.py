"""Times what the private sshd adds: set-up and teardown of a node with it and without, keys, and one command over it.

The tiny image of the tests; the four commands take turns, each started from inside the node.
"""

from __future__ import annotations

import secrets
import shlex
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click

from benchmarks.turns import in_turns, show
from tests.node.pair import Pair
from tests.node.rig import IDENTITY_FILE, Rig
from udi import nodecommand
from udi.commandline import run
from udiroot.errors import UpstreamFailed


@click.command()
@click.option("--rounds", default=40, show_default=True, help="Number of rounds.")
def main(rounds: int) -> None:
    """Measure what the private sshd adds, and print the medians."""
    with tempfile.TemporaryDirectory(prefix="udi-bench-") as directory:
        Path(directory).chmod(0o755)
        rig = Rig(Path(directory) / "rig")
        pair = Pair(rig)
        try:
            times = _nodes(pair, rounds) | _ssh(pair, rounds)
        finally:
            pair.close()
            rig.close()
    show(times, rounds)


def _nodes(pair: Pair, rounds: int) -> dict[str, list[float]]:
    rig = pair.nodes[412]
    commands = {}
    for kind, keys in (("without sshd", None), ("with sshd", pair.keys())):
        plan = pair.plan(keys)
        path, sha256 = rig.send(plan)
        nonce = secrets.token_hex(16)
        set_up = nodecommand.setup_command(rig.site, IDENTITY_FILE, path, sha256, nonce)
        commands[f"setupRoot, {kind}"] = shlex.split(set_up)
        commands[f"unsetupRoot, {kind}"] = shlex.split(
            nodecommand.teardown_command(rig.site, IDENTITY_FILE, plan.job, nonce)
        )
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
