"""What a job without a script of its own runs: an image, volumes, modules, and the words that udi-run gets inside.

Each workload manager makes a script and a submission of it (`torque_hooks.unscripted`, `slurm_hooks.unscripted`).
"""

from __future__ import annotations

import shlex
from typing import Protocol

from udi.carried import MARK, is_file
from udi.values import Frozen

RUN = "/opt/udi/bin/udi-run"
"""Where udi-run is in every root."""
_NAME_LENGTH = 15
"""Characters of a job's name that every version of Torque takes."""


class Launch(Frozen):
    """What is to run. `words` follow udi-run's name: its options, then the command; none at all is the entry point."""

    image: str
    volumes: str = ""
    modules: str = ""
    words: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """udi-run with its words, as a command for a shell."""
        return shlex.join((RUN, *self.words))

    @property
    def job_name(self) -> str:
        """The image's own name, or the environment file's, as a job can be called by it."""
        named = self.image.removesuffix(".toml") if is_file(self.image) else self.image.partition("@")[0]
        last = named.rpartition("/")[2].removeprefix("docker:").removeprefix("id:").removeprefix(MARK)
        plain = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in last)[:_NAME_LENGTH]
        return plain if plain[:1].isalpha() else f"udi-{plain}"[:_NAME_LENGTH]


class Submission(Frozen):
    """A program to run as the user, with the job's script on its standard input. It prints the job's id."""

    argv: tuple[str, ...]
    script: str


class Unscripted(Protocol):
    """How a workload manager submits such a job."""

    def split(self, words: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The leading options of the workload manager's own program, and what follows them. Raises UsageError."""

    def submission(self, options: tuple[str, ...], launch: Launch) -> Submission:
        """Raises UsageError where the options make no such job, or where a value cannot be passed on."""
