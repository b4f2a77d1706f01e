"""Times a program that `udi-run` starts, next to the same by a shell script that sets the same environment, and alone.

A root of the tiny image of the tests, with twenty variables; the three commands take turns, each started inside the
root by a program of the node.
"""

from __future__ import annotations

import click

from benchmarks.rigs import temporary_rig
from benchmarks.turns import in_turns, show
from tests.node.rig import IMAGE_ID, Rig
from udi.accounts import Account
from udi.commandline import run
from udi.facts import Facts
from udi.rundata import run_data
from udiroot.errors import UpstreamFailed
from udiroot.plan import PlanFile
from udiroot.sitemodules import RUN

_ROOT = "/var/udi"
_SCRIPT = "/opt/udi/bin/by-shell"


@click.command()
@click.option("--rounds", default=200, show_default=True, help="Number of rounds.")
def main(rounds: int) -> None:
    """Measure the start of a program by udi-run, and print the medians."""
    with temporary_rig() as rig:
        times = _measure(rig, rounds)
    show(times, rounds)


def _measure(rig: Rig, rounds: int) -> dict[str, list[float]]:
    env = ("PATH=/bin", *(f"VARIABLE_{number}=value of {number}" for number in range(20)))
    facts = Facts(id=IMAGE_ID, format="squashfs", size=1, sha256="0" * 64, env=env, workdir="/analysis")
    alice = Account("alice", 1001, 1001, (1001,), "/", "/bin/sh")
    exports = "".join(f"export {name}='{value}'\n" for name, _, value in (text.partition("=") for text in env))
    files = (
        PlanFile(RUN, 0o444, run_data(facts, rig.site.environment, alice, "tiny")),
        PlanFile(_SCRIPT, 0o755, f'#!/bin/sh\n{exports}cd /analysis || exit 125\nexec "$@"\n'),
    )
    done = rig.set_up(rig.plan(files=files))
    if not done.ok:
        raise UpstreamFailed(f"set-up failed: {done.words}")
    entered = ["/bin/busybox", "chroot", _ROOT]
    program = ["/bin/busybox", "true"]
    commands = {
        "the program alone": [*entered, *program],
        "by udi-run": [*entered, "/opt/udi/bin/udi-run", *program],
        "by a shell script": [*entered, _SCRIPT, *program],
    }
    try:
        return in_turns(rig, commands, rounds)
    finally:
        rig.tear_down()


if __name__ == "__main__":
    run(main, "benchmarks.udi_run")
