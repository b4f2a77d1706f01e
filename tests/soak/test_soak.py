"""A soak of five minutes on both machines at once.

Everybody on them pauses several times as long as in `make soak`, which leaves the processors to what else runs.
UDI_SOAK_MINUTES says how long it takes, bringing the machines up included. What it finds, it finds at random: a run
that fails names its seed and what did not hold, and keeps the machines' logs.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from slurmsim.cluster import PROGRAMS
from tests.reachable import CHECKOUT

_MINUTES = float(os.environ.get("UDI_SOAK_MINUTES", "5"))
_ROUND, _LEAST, _EASE = 60, 3, 20
"""Memory is compared from the third look at a process on."""
_QUIET = 400.0
"""Seconds beyond that in which the last round's jobs must have ended, however loaded this host is."""


def test_what_must_hold_on_machines_where_everything_happens_at_once(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("namespaces and mounts need root")
    if missing := [name for name in PROGRAMS if not shutil.which(name, path="/usr/sbin:/usr/bin")]:
        pytest.skip(f"needs Slurm and munge (Debian: slurmctld, slurmd, munge): no {', '.join(missing)}")
    options = [f"--minutes={_MINUTES}", f"--round={_ROUND}", f"--least={_LEAST}"]
    options += [f"--ease={_EASE}", f"--keep={tmp_path}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.soak", *options],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        told, _ = process.communicate(timeout=60 * _MINUTES + _QUIET)
    finally:
        process.terminate()
        process.wait()
    assert process.returncode == 0, told
    assert "torque: " in told and "slurm: " in told, told
    for machine in ("torque", "slurm"):
        rounds = [line for line in told.splitlines() if f" {machine} round " in line]
        assert rounds and " 0 jobs" not in rounds[-1] and " 0 tasks" not in rounds[-1], told
        assert re.search(r"gateway \d+ MiB \([1-9]\d* compared\)", rounds[-1]), told
