"""Soak whole machines.

    python -m tests.soak [--minutes 60] [--round 180] [--least 1] [--machine torque|slurm] [--seed TEXT] [--ease 1]
        [--keep DIR]

Each machine is one process; both run at the same time. After each round all is quiet, and what must hold is looked
at: every dirty node is named, an operator can clean it, and a job of all nodes runs then; each task ran in its job's
image, with its volumes and as its user; no file is left in any directory of state, no process of a conversion is left,
no daemon has grown, no log of ours has a traceback, the image store is consistent; in the end, no loop device of it is
left on this host. The first thing that does not hold ends the run with exit code 1, and logs are kept. The seed, which
is printed, gives the same dice again, though not the same order of what happens at the same time.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from tests.reachable import have_own_mounts, make_checkout_reachable
from tests.soak.machine import Soaked
from tests.soak.slurm import SoakedSlurm
from tests.soak.soak import Soak
from tests.soak.torque import SoakedCray

_MACHINES: dict[str, type[Soaked]] = {kind.name: kind for kind in (SoakedCray, SoakedSlurm)}


def _say(line: str) -> None:
    click.echo(f"{time.strftime('%H:%M:%S')} {line}")


def _soak(machine: str, minutes: float, seconds: float, least: int, seed: str, ease: float, keep: str) -> int:
    have_own_mounts()
    make_checkout_reachable()
    end = time.monotonic() + 60 * minutes
    number = 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # the machine is taken down all the same
    with Soak(_MACHINES[machine](), seed, _say, ease) as soak:
        while number < least or time.monotonic() < end - seconds / 4:
            number += 1
            found = soak.round(number, max(seconds / 4, min(seconds, end - time.monotonic())))
            for line in found:
                click.echo(f"{machine} round {number}: {line}", err=True)
            if found:
                place = Path(keep or tempfile.mkdtemp(prefix="soak-found-"), machine)
                soak.keep(place)
                click.echo(f"{machine}: seed {seed}; logs are in {place}", err=True)
                return 1
        left = soak.end()
    for line in left:
        click.echo(f"{machine} at its end: {line}", err=True)
    if left:
        return 1
    click.echo(f"{machine}: {number} rounds, all held")
    return 0


@click.command()
@click.option("--minutes", default=60.0, show_default=True, help="How long.")
@click.option("--round", "seconds", default=180.0, show_default=True, help="Seconds after which all is looked at.")
@click.option("--least", default=1, show_default=True, help="How many rounds at least, however long they take.")
@click.option("--machine", type=click.Choice(list(_MACHINES)), help="One machine only.  [default: both]")
@click.option("--seed", default="", help="That of the dice.  [default: new]")
@click.option("--ease", default=1.0, show_default=True, help="How many times as long everybody pauses.")
@click.option("--keep", default="", help="Where logs are kept when something is found.  [default: a new directory]")
def main(minutes: float, seconds: float, least: int, machine: str | None, seed: str, ease: float, keep: str) -> None:
    """Soak a Cray with Torque and a cluster with Slurm, at the same time."""
    if os.geteuid() != 0:
        raise click.ClickException("this needs root: namespaces and mounts")
    if machine and seed:
        sys.exit(_soak(machine, minutes, seconds, least, seed, ease, keep))
    seed = seed or secrets.token_hex(4)
    click.echo(f"seed {seed}")
    if machine:
        sys.exit(_soak(machine, minutes, seconds, least, seed, ease, keep))
    words = [f"--minutes={minutes}", f"--round={seconds}", f"--least={least}", f"--seed={seed}"]
    words += [f"--ease={ease}", f"--keep={keep}"]
    running = [subprocess.Popen([sys.executable, "-m", "tests.soak", f"--machine={m}", *words]) for m in _MACHINES]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        codes = [process.wait() for process in running]
    finally:
        for process in running:
            process.terminate()
            process.wait()
    sys.exit(max(map(abs, codes)))


if __name__ == "__main__":
    main()
