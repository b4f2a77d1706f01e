"""Commands that take turns on a node, each started from inside it, so neither a shell nor entering it is timed."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence

from tests.node.rig import Rig

_WARM_UP = 2
_TIMER = """
import json, os, sys, time
rounds, commands = json.load(sys.stdin)
times = [[] for _ in commands]
for _ in range(rounds):
    for number, argv in enumerate(commands):
        began = time.perf_counter()
        quiet = [(os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0)]
        child = os.posix_spawn(argv[0], argv, os.environ, file_actions=quiet)
        status = os.waitpid(child, 0)[1]
        times[number].append(time.perf_counter() - began)
        if status:
            sys.exit("failed: %s" % argv)
print(json.dumps(times))
"""


def in_turns(rig: Rig, commands: Mapping[str, Sequence[str]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each command, one figure per round, after two rounds that do not count."""
    timer = [*rig.site.node.python, "-I", "-c", _TIMER]
    given = json.dumps([rounds + _WARM_UP, [list(argv) for argv in commands.values()]])
    done = rig.node.run(timer, input=given, timeout=600, check=True)
    return {name: values[_WARM_UP:] for name, values in zip(commands, json.loads(done.stdout), strict=True)}


def show(times: Mapping[str, Sequence[float]], rounds: int) -> None:
    """Print one line per command."""
    print(f"{rounds} rounds; median, minimum and maximum in milliseconds")
    for name, values in times.items():
        row = "".join(f"{figure * 1000:8.1f}" for figure in (statistics.median(values), min(values), max(values)))
        print(f"{name:34}{row}")
