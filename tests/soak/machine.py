"""What a machine has of its own, so that it can be soaked: how its commands are run, and what else goes wrong there."""

from __future__ import annotations

import abc
import contextlib
import os
import random
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import ClassVar

from tests.soak.actors import Act, Role
from tests.soak.jobs import Expected
from tests.soak.leftovers import Census
from tests.soak.wishes import Wish
from xcsim.loops import NodeLoop
from xcsim.site import Tables

UIDS = {"alice": 1001, "bob": 1002}
KEPT: Tables = {"gateway": {"keep_bytes": 80 << 20}}
"""So that an expiry finds something to remove."""
GATEWAY_STATE = r"/var/lib/udi-gateway/((locks|turns|layers)(/.*)?|history\.sqlite.*)"
STORE = r"/scratch/udi/(images|refs)/.*|/scratch/soak-[a-z0-9-]*\.tar"
"""Files that may be added: what the gateway keeps, and images with the archives that they were made of."""


class Soaked(abc.ABC):
    """A machine, from `up` to `down`."""

    name: ClassVar[str]
    all_nodes: ClassVar[int]
    most_nodes: ClassVar[int]
    most_jobs: ClassVar[int]
    """Of jobs that are not over yet, so that users wait for each other."""

    @abc.abstractmethod
    def up(self) -> None:
        """Bring it up, with the images tiny:1 of alice, secret:1 of bob and tools:1 of everybody."""

    @abc.abstractmethod
    def down(self) -> None: ...

    @property
    @abc.abstractmethod
    def scratch(self) -> Path:
        """Where this host finds the machine's /scratch."""

    @abc.abstractmethod
    def marker(self, name: str) -> str:
        """What an image of that name says of itself on this machine."""

    @abc.abstractmethod
    def run(self, user: str, *words: str, input: str = "") -> subprocess.CompletedProcess[str]:
        """A program of a user on the login host, to its end."""

    @abc.abstractmethod
    def run_elsewhere(self, user: str, *words: str) -> subprocess.CompletedProcess[str]:
        """The same where the gateway's socket is not, so that MUNGE tells it who asks."""

    @abc.abstractmethod
    def submission(self, one: Wish, volumes: Sequence[str], dice: random.Random) -> tuple[list[str], str, int]:
        """The command that submits a job, its script, and how many tasks each launch of it has."""

    @abc.abstractmethod
    def over(self, jobs: Iterable[Expected]) -> list[Expected]:
        """Those of these jobs that have ended; none where nobody can tell now."""

    @abc.abstractmethod
    def printed(self, job: Expected) -> str:
        """What a job that has ended has printed."""

    @abc.abstractmethod
    def cancel(self, job: str) -> None: ...

    @abc.abstractmethod
    def roles(self) -> list[Role]:
        """Who else acts in a round: what goes wrong on this machine alone."""

    @abc.abstractmethod
    def kills(self) -> list[Act]:
        """What is killed beside the gateway and munged."""

    @abc.abstractmethod
    def gateway(self, *, serving: bool) -> list[int]:
        """The processes of `udi-gateway`, by their numbers on this host: the service's alone, or all."""

    @abc.abstractmethod
    def conversions(self) -> list[int]:
        """The processes of all conversions, by their numbers on this host."""

    @abc.abstractmethod
    def push(self, archive: Path, name: str) -> None:
        """Put the image of an archive into the registry that is the gateway's default."""

    @abc.abstractmethod
    def start_gateway(self) -> None:
        """Start the service where none runs."""

    @abc.abstractmethod
    def kill_munged(self, dice: random.Random, how: str) -> Callable[[], None]:
        """Kill one munged by this signal, `KILL` or `TERM`; what starts it again."""

    @abc.abstractmethod
    def look_after(self, dice: random.Random) -> None:
        """As an operator: bring back nodes that are out of service, and release jobs that are held."""

    @abc.abstractmethod
    def calm(self) -> None:
        """Let nothing go wrong any more."""

    @abc.abstractmethod
    def unnamed(self) -> list[str]:
        """Nodes that have something of a job and of which nobody is told; no job is left."""

    @abc.abstractmethod
    def cleaned(self) -> list[str]:
        """Clean all as an operator; what is not as before then."""

    @abc.abstractmethod
    def censuses(self) -> dict[str, Census]:
        """What is counted of each host's files."""

    @abc.abstractmethod
    def daemons(self) -> dict[str, list[int]]:
        """Processes that never end, by what they are and by their numbers on this host."""

    @abc.abstractmethod
    def loops(self) -> list[NodeLoop]:
        """The loop devices of all its hosts."""

    @abc.abstractmethod
    def logs(self) -> list[Path]:
        """Where our own programs log."""

    @abc.abstractmethod
    def evidence(self) -> dict[str, Path]:
        """What tells how it came to what was found."""


def signal_all(pids: Iterable[int], number: int) -> None:
    """Send a signal to those of these processes that are still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def without_traceback(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    """A command that may have failed, but not with a traceback."""
    assert "Traceback" not in done.stderr, f"{done.args}: {done.stderr}"
    return done
