"""A chain of hooks: `mom_priv/prologue` and `epilogue` each run all programs of a directory, in order of name.

The template `hook-chain.j2` is that hook. Here is what it is rendered with, and the look at a directory by which
`udi-admin` finds what the hook would refuse.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from torque_hooks.prologue import REQUEUE_PAUSE
from torque_hooks.settings import TorqueConfig
from udi.oserrors import reason

ENDINGS = (".bak", ".orig", ".rej", ".swp", ".rpmsave", ".rpmorig", ".rpmnew", ".dpkg-*")
"""Of names that editors and package managers leave beside a file; such are passed over, as are hidden ones."""
HOOKS = {"prologue": "before", "epilogue": "after"}
"""The hooks that there is a chain of, and when pbs_mom runs each."""


def chain_values(torque: TorqueConfig, name: str) -> dict[str, object]:
    """What the template needs for the hook of that name. Only a prologue's failure keeps the rest from running."""
    return {
        "kind": name,
        "when": HOOKS[name],
        "directory": directory_of(torque, name),
        "ours": torque.chain,
        "seconds": torque.chain_deadline,
        "stops": name == "prologue",
        "endings": ENDINGS,
        "pause_seconds": int(REQUEUE_PAUSE) if name == "prologue" else 0,
    }


def directory_of(torque: TorqueConfig, name: str) -> str:
    """Where the programs of the hook of that name are."""
    return f"{torque.mom_priv}/{name}.d"


@dataclass
class Chain:
    """The programs of a directory in the order in which they run; what makes the hook refuse it, and what it passes
    over."""

    programs: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)


def examine(directory: str) -> Chain:
    """Look at a directory as the hook does. One that does not exist is refused."""
    found = Chain()
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        found.refused.append(f"{directory}: {reason(error)}")
        return found
    try:
        if not _is_roots(os.fstat(descriptor)):
            found.refused.append(f"{directory} must be owned by root, and no one else may write it")
        for name in sorted(os.listdir(descriptor), key=os.fsencode):
            _sort(found, directory, name, os.stat(name, dir_fd=descriptor, follow_symlinks=False))
    except OSError as error:
        found.refused.append(f"{directory}: {reason(error)}")
    finally:
        os.close(descriptor)
    return found


def _sort(found: Chain, directory: str, name: str, status: os.stat_result) -> None:
    is_file, is_link = stat.S_ISREG(status.st_mode), stat.S_ISLNK(status.st_mode)
    if _is_left_over(name) or not (is_link or (is_file and status.st_mode & 0o111)):
        found.passed_over.append(name)
    elif is_link or not _is_roots(status):
        found.refused.append(f"{directory}/{name} must be a file of root's that no one else may write, and no link")
    else:
        found.programs.append(name)


def _is_left_over(name: str) -> bool:
    return name.startswith(".") or name.endswith("~") or any(_has_ending(name, ending) for ending in ENDINGS)


def _has_ending(name: str, ending: str) -> bool:
    return ending.rstrip("*") in name if ending.endswith("*") else name.endswith(ending)


def _is_roots(status: os.stat_result) -> bool:
    return status.st_uid == 0 and not status.st_mode & 0o022


def strangers(torque: TorqueConfig) -> Iterator[tuple[str, list[str]]]:
    """Each directory of a chain that exists, and the programs of the site's own in it."""
    for name in HOOKS:
        directory = directory_of(torque, name)
        if os.path.isdir(directory):
            yield directory, [program for program in examine(directory).programs if program != torque.chain]
