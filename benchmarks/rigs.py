"""A node for one benchmark, and the commands that set a root up and take it down there."""

from __future__ import annotations

import contextlib
import secrets
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.node.rig import IDENTITY_FILE, Rig
from udi import nodecommand
from udiroot.plan import NodePlan


@contextlib.contextmanager
def temporary_rig() -> Iterator[Rig]:
    """A node whose files are gone at the end."""
    with tempfile.TemporaryDirectory(prefix="udi-bench-") as directory:
        Path(directory).chmod(0o755)
        rig = Rig(Path(directory) / "rig")
        try:
            yield rig
        finally:
            rig.close()


def step_commands(rig: Rig, plan: NodePlan) -> tuple[list[str], list[str]]:
    """The words of setupRoot and of unsetupRoot for a plan, as they may be run on the node any number of times."""
    path, sha256 = rig.send(plan)
    nonce = secrets.token_hex(16)
    return (
        shlex.split(nodecommand.setup_command(rig.site, IDENTITY_FILE, path, sha256, nonce)),
        shlex.split(nodecommand.teardown_command(rig.site, IDENTITY_FILE, plan.job, nonce)),
    )
