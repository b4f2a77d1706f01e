"""A cold start: none of our software is in the node's memory, and each operation on its file system is a round trip.

The same software, once as the zip that nodes use, once as an installed package tree with its compiled files.
Python itself is in neither: its own start is the same in both.
"""

from __future__ import annotations

import secrets
import shlex
import shutil
import statistics
import sys
import time
from pathlib import Path

from benchmarks.slowfs import Mounting, Service, SlowFileSystems
from tests.node.rig import IDENTITY_FILE, Rig
from udi import nodecommand, nodestart
from xcsim import tools

_LATENCY = 0.001
_MOUNT = "/slow"
_ROOT = Path(__file__).parents[1]


def measure(rig: Rig, rounds: int) -> None:
    """Print operations and time of setupRoot and unsetupRoot from the zip and from a package tree."""
    rig.node.run(["/bin/mkdir", _MOUNT], check=True)
    software = rig.directory / "cold"
    (software / "tree").mkdir(parents=True)
    shutil.copy(rig.directory / "software/udi.zip", software / "udi.zip")
    for package in ("udiroot", "nodehealth"):
        shutil.copytree(_ROOT / package, software / "tree" / package, ignore=shutil.ignore_patterns("__pycache__"))
    tools.run(
        sys.executable, "-m", "compileall", "-q", "-o", "0", software / "tree", failure="our software did not compile"
    )
    starts = {
        "zip": nodestart.start_line(f"{_MOUNT}/udi.zip", "udiroot.commands", nodecommand.START_SIGN),
        "package tree": f"import sys; sys.path.insert(0, '{_MOUNT}/tree'); from udiroot.commands import main; "
        f"sys.stderr.write({nodecommand.START_SIGN!r}); main()",
    }
    print(f"{rounds} cold starts, {_LATENCY * 1000:g} ms per operation; operations, and median milliseconds")
    for name, start in starts.items():
        results = [_pair(rig, software, start) for _ in range(rounds)]
        for step in ("setupRoot", "unsetupRoot"):
            operations = {result[step][0] for result in results}
            middle = statistics.median(result[step][1] for result in results) * 1000
            print(f"{step:12} from the {name:13}{'-'.join(map(str, sorted(operations))):>6}{middle:9.1f}")


def _pair(rig: Rig, software: Path, start: str) -> dict[str, tuple[int, float]]:
    """One set-up and one teardown, each on a file system that was just mounted: step → (operations, seconds)."""
    plan = rig.plan(programs=())  # a package tree holds none
    path, sha256 = rig.send(plan)
    nonce = secrets.token_hex(16)
    commands = {
        "setupRoot": nodecommand.setup_command(rig.site, IDENTITY_FILE, path, sha256, nonce),
        "unsetupRoot": nodecommand.teardown_command(rig.site, IDENTITY_FILE, plan.job, nonce),
    }
    usual = nodestart.start_line(rig.site.node.zip, "udiroot.commands", nodecommand.START_SIGN)
    return {
        step: _cold(rig, software, [start if word == usual else word for word in shlex.split(command)])
        for step, command in commands.items()
    }


def _cold(rig: Rig, software: Path, argv: list[str]) -> tuple[int, float]:
    with SlowFileSystems(software, Service(_LATENCY), [Mounting(_MOUNT, rig.node.pid)]) as slow:
        began = time.perf_counter()
        rig.node.run(argv, check=True)
        return slow.counts().operations, time.perf_counter() - began
