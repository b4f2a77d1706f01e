"""Times setupRoot and unsetupRoot on a node, beside the start of a bare interpreter, in one run.

A Debian image in squashfs, three site file systems, two volumes. The three commands take turns, each started from
inside the node, so neither a shell nor the way into the node is in any figure.
"""

from __future__ import annotations

import argparse
import json
import secrets
import shlex
import statistics
import tempfile
from pathlib import Path

from tests.node.rig import Rig
from udi import nodecommand
from udiroot.plan import PlanMount
from xcsim.debian import debian_tree

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


def main() -> None:
    """Print the medians, and each as a multiple of the bare interpreter's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--cache", type=Path, default=Path(".cache"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="udi-bench-") as folder:
        Path(folder).chmod(0o755)
        rig = Rig(Path(folder) / "rig")
        try:
            times = _measure(rig, debian_tree(options.cache), options.rounds)
        finally:
            rig.close()
    bare = statistics.median(times["bare interpreter"])
    print(
        f"{options.rounds} rounds: median, least and most in milliseconds; the median as a multiple of the bare start's"
    )
    for name, values in times.items():
        middle = statistics.median(values)
        row = f"{middle * 1000:7.1f} {min(values) * 1000:7.1f} {max(values) * 1000:7.1f} {middle / bare:6.2f}"
        print(f"{name:18} {row}")


def _measure(rig: Rig, tree: Path, rounds: int) -> dict[str, list[float]]:
    name = "de" * 32
    rig.make_image("squashfs", name, tree)
    (rig.folder / "scratch/alice/in").mkdir()
    plan = rig.plan(
        image_path=f"/lus/udi/images/{name}.squashfs",
        sites=tuple(PlanMount(path, path, False) for path in ("/scratch", "/projects", "/home")),
        volumes=(PlanMount("/scratch/alice", "/output", False), PlanMount("/scratch/alice/in", "/mnt", True)),
    )
    path, sha256 = rig.send(plan)
    nonce = secrets.token_hex(16)
    commands = {
        "bare interpreter": [*rig.site.node.python, "-I", "-S", "-c", "pass"],
        "setupRoot": shlex.split(nodecommand.setup_command(rig.site, path, sha256, nonce)),
        "unsetupRoot": shlex.split(nodecommand.teardown_command(rig.site, plan.job, nonce)),
    }
    timer = [*rig.site.node.python, "-I", "-c", _TIMER]
    done = rig.node.run(timer, input=json.dumps([rounds + 2, list(commands.values())]), timeout=600, check=True)
    return {name: values[2:] for name, values in zip(commands, json.loads(done.stdout), strict=True)}


if __name__ == "__main__":
    main()
