"""What users ask for, by dice: volumes of each kind with what a task proves of them, and work that ends well or not."""

from __future__ import annotations

import random
from dataclasses import dataclass

FILE_TEXT = "handed-in"
"""What the file of each user says that is asked for as a volume: `/scratch/USER/input`."""


@dataclass(frozen=True)
class Volumes:
    """Volumes, `{user}` in place of the user; a shell command that uses them in the root, and the word that it prints
    where they are what was asked for. No quote may be in it: it is quoted by scripts."""

    texts: tuple[str, ...]
    proof: str
    word: str

    def of(self, user: str) -> Volumes:
        return Volumes(tuple(t.format(user=user) for t in self.texts), self.proof.format(user=user), self.word)


_DIRECTORY = Volumes(
    ("/scratch/{user}:/output",), "touch /output/$$ && rm /output/$$ && echo written || echo lost", "written"
)
_FILE = Volumes(("/scratch/{user}/input:/input:ro",), "cat /input", FILE_TEXT)
VOLUMES = (
    Volumes((), "echo none", "none"),
    _DIRECTORY,
    Volumes(("/scratch:/a/b:ro",), "touch /a/b/{user}/new 2>/dev/null && echo written || echo read-only", "read-only"),
    _FILE,
    Volumes(("/scratch/{user}:/cache:per-node=16M",), "touch /cache/$$ && ! test -e /cache/input && echo own", "own"),
    Volumes((*_DIRECTORY.texts, *_FILE.texts), "touch /output/$$ && rm /output/$$ && cat /input", FILE_TEXT),
)
REFUSED = ("/etc:/mine", "/scratch/nobody:/a", "/scratch/{user}:/etc")
"""Volumes that no job may have: not allowed, not there, and not at that place."""
WORK = ("true", "sleep 0.5", "sleep 2", "setsid sleep 30 &", "kill -9 $$")


@dataclass(frozen=True)
class Wish:
    """One job's."""

    image: str
    nodes: int
    volumes: Volumes
    refused: str
    work: str


def wish(dice: random.Random, user: str, images: tuple[str, ...], most_nodes: int) -> Wish:
    """The next one of a user; every sixteenth is for a volume that is refused, in addition to the others."""
    return Wish(
        image=dice.choice(images),
        nodes=dice.randint(1, most_nodes),
        volumes=dice.choice(VOLUMES).of(user),
        refused=dice.choice(REFUSED).format(user=user) if dice.random() < 1 / 16 else "",
        work=dice.choice(WORK),
    )
