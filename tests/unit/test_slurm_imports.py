"""Jobs wait for Slurm's hooks: none imports at its start what only others need."""

from __future__ import annotations

import subprocess
import sys

import pytest

_SLOW = (
    "ClusterShell jinja2 lxml click dataclasses datetime inspect zipfile tempfile tomllib jobs.prepare jobs.takedown"
    " udi.planning"
)
_OF_A_SETUP = "jobs.image udi.store udi.acceptance"


@pytest.mark.parametrize(
    ("hook", "absent"), [("prolog", _SLOW), ("epilog", f"{_SLOW} {_OF_A_SETUP}"), ("health", _SLOW)]
)
def test_what_a_hook_does_not_import(hook: str, absent: str) -> None:
    code = f"import sys, admin.entry.slurm, slurm_hooks.{hook}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert set(absent.split()) & set(done.stdout.split()) == set()
