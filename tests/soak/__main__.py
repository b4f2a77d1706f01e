"""Soak whole machines.

    python -m tests.soak [--minutes 60] [--round 180] [--machine torque|slurm] [--seed TEXT]

Each machine is one process; both run at the same time. After each round all is quiet, and what must hold is looked at:
every dirty node is named, an operator can clean it, no task ran outside its image, no file is left, no daemon has
grown, the image store is consistent. The first thing that does not hold ends the run with exit code 1. The seed, which
is printed, gives the same dice again, though not the same order of what happens at the same time.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time

import click

from tests.reachable import have_own_mounts, make_checkout_reachable
from tests.soak.slurm import SlurmSoak
from tests.soak.torque import TorqueSoak

_MACHINES: dict[str, type[TorqueSoak] | type[SlurmSoak]] = {"torque": TorqueSoak, "slurm": SlurmSoak}


def _soak(machine: str, minutes: float, seconds: float, seed: str) -> int:
    have_own_mounts()
    make_checkout_reachable()
    end = time.monotonic() + 60 * minutes
    number = 0
    with _MACHINES[machine](seed, lambda line: click.echo(f"{time.strftime('%H:%M:%S')} {line}")) as soak:
        while number == 0 or time.monotonic() < end:
            number += 1
            found = soak.round(number, max(1.0, min(seconds, end - time.monotonic())))
            for line in found:
                click.echo(f"{machine} round {number}: {line}", err=True)
            if found:
                return 1
    click.echo(f"{machine}: {number} rounds, all held")
    return 0


@click.command()
@click.option("--minutes", default=60.0, show_default=True, help="How long, at least one round.")
@click.option("--round", "seconds", default=180.0, show_default=True, help="Seconds after which all is looked at.")
@click.option("--machine", type=click.Choice(list(_MACHINES)), help="One machine only.  [default: both]")
@click.option("--seed", default="", help="That of the dice.  [default: new]")
def main(minutes: float, seconds: float, machine: str | None, seed: str) -> None:
    """Soak a Cray with Torque and a cluster with Slurm, at the same time."""
    if os.geteuid() != 0:
        raise click.ClickException("this needs root: namespaces and mounts")
    seed = seed or secrets.token_hex(4)
    click.echo(f"seed {seed}")
    if machine:
        sys.exit(_soak(machine, minutes, seconds, seed))
    words = [f"--minutes={minutes}", f"--round={seconds}", f"--seed={seed}"]
    running = [subprocess.Popen([sys.executable, "-m", "tests.soak", f"--machine={m}", *words]) for m in _MACHINES]
    sys.exit(max(process.wait() for process in running))


if __name__ == "__main__":
    main()
