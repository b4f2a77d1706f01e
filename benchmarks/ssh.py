"""Times what the private sshd adds: set-up and teardown of a node with it and without, keys, and one command over it.

The tiny image of the tests; the four commands take turns, each started from inside the node.
"""

from __future__ import annotations

import argparse
import json
import secrets
import shlex
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.node.pair import Pair
from tests.node.rig import Rig
from udi import nodecommand

_TIMER = """
import json, os, sys, time
rounds, commands = json.load(sys.stdin)
times = [[] for _ in commands]
for _ in range(rounds):
    for number, argv in enumerate(commands):
        began = time.perf_counter()
        quiet = [(os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0)]
        status = os.waitpid(os.posix_spawn(argv[0], argv, os.environ, file_actions=quiet), 0)[1]
        times[number].append(time.perf_counter() - began)
        if status:
            sys.exit("failed: %s" % argv)
print(json.dumps(times))
"""


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="udi-bench-") as folder:
        Path(folder).chmod(0o755)
        rig = Rig(Path(folder) / "rig")
        pair = Pair(rig)
        try:
            times = _nodes(pair, options.rounds) | _ssh(pair, options.rounds)
        finally:
            pair.close()
            rig.close()
    print(f"{options.rounds} rounds; median, least and most in milliseconds")
    for name, values in times.items():
        row = " ".join(f"{figure * 1000:7.1f}" for figure in (statistics.median(values), min(values), max(values)))
        print(f"{name:32} {row}")


def _nodes(pair: Pair, rounds: int) -> dict[str, list[float]]:
    rig = pair.nodes[412]
    commands = {}
    for kind, keys in (("without sshd", None), ("with sshd", pair.keys())):
        plan = pair.plan(keys)
        path, sha256 = rig.send(plan)
        nonce = secrets.token_hex(16)
        set_up = nodecommand.setup_command(rig.site, path, sha256, nonce)
        commands[f"setupRoot, {kind}"] = shlex.split(set_up)
        commands[f"unsetupRoot, {kind}"] = shlex.split(nodecommand.teardown_command(rig.site, plan.job, nonce))
    timer = [*rig.site.node.python, "-I", "-c", _TIMER]
    done = rig.node.run(timer, input=json.dumps([rounds + 2, list(commands.values())]), timeout=600, check=True)
    return {name: values[2:] for name, values in zip(commands, json.loads(done.stdout), strict=True)}


def _ssh(pair: Pair, rounds: int) -> dict[str, list[float]]:
    keys = _timed(pair.keys, rounds)
    pair.set_up(pair.plan(pair.keys()))
    script = f"for n in $(seq {rounds}); do /opt/udi/bin/ssh nid00413 true || exit 1; done"
    began = time.perf_counter()
    done = pair.nodes[412].inside(script)
    took = time.perf_counter() - began
    pair.tear_down()
    if done.returncode:
        raise SystemExit(f"ssh failed: {done.stderr}")
    return {"keys of a job, on the MOM node": keys, "ssh nid00413 true (mean)": [took / rounds]}


def _timed(step: Callable[[], object], rounds: int) -> list[float]:
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    return times


if __name__ == "__main__":
    main()
