"""Terminals on a Cray: alice's, root's and the store's account's, and hers on a workstation, which is the same host."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.system import desk
from tests.system.cray import Cray, home_of

LAPTOP = f"{home_of('alice')}/laptop"
"""Where alice is on the workstation."""
_PLACES = {"alice": home_of("alice"), "root": "/root", "udi": "/", "workstation": LAPTOP}
_AHEAD = {"workstation": f'PATH=/usr/bin:$PATH; scp() {{ cp "$1" {home_of("alice")}; }}; '}
"""Debian's docker is the one of its daemon's version; and a copy to another host is one to her other directory."""


def typist(cray: Cray) -> Callable[[str, str], str]:
    """What runs a line of shell, and returns its output and errors as they came."""

    def run(line: str, who: str) -> str:
        words = ["/bin/bash", "-lc", f"exec 2>&1; {_AHEAD.get(who, '')}{line}"]
        user, env = ("alice", desk.HOST) if who == "workstation" else (who, None)
        return cray.machine.run_as(user, words, cwd=_PLACES[who], env=env).stdout

    return run


def finisher(cray: Cray) -> Callable[[str], object]:
    """What waits for a job, of an array for all its tasks."""

    def finish(job: str) -> None:
        for task in cray.tasks(job):
            cray.ended(task, "C")

    return finish


def directories(cray: Cray) -> dict[str, Path]:
    """Where each is, as this process sees it."""
    return {who: cray.machine.path(place) for who, place in _PLACES.items()}
