"""How a job ends whose prologue failed: by an error of its user, or of the site."""

from __future__ import annotations

from tests.system.cray import Ended
from udiroot.errors import counted


def deleted_with(ended: Ended, *words: str) -> None:
    """The job is gone, nothing of it ran, and its error path holds one line with these words."""
    assert (ended.state, ended.status, ended.starts, ended.codes, ended.output) == ("C", "-2", 1, [1], "")
    assert ended.error.count("\n") == 1 and ended.error.startswith("udi-prologue: ")
    assert [word for word in words if word not in ended.error] == [], ended.error


def held_with(ended: Ended, *words: str, starts: int = 2) -> None:
    """The job was tried that often, nothing of it ran, it is held, and its error path holds one line that says so."""
    assert (ended.state, ended.status, ended.starts) == ("H", "-14", starts)
    assert (ended.codes, ended.output) == (starts * [2], "")
    assert ended.error.count("\n") == 1 and ended.error.startswith("udi-prologue: ")
    wanted = (*words, f"[site error (not your job's fault); job held after {counted(starts, 'failed start')}]")
    assert [word for word in wanted if word not in ended.error] == [], ended.error
