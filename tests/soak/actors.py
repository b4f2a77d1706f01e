"""Those who act on a machine at the same time, each in a thread and with dice of its own, until told to stop."""

from __future__ import annotations

import collections
import random
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Act = Callable[[random.Random], None]


@dataclass(frozen=True)
class Role:
    """One of `acts`, again and again, with a pause of up to `pause` seconds in between; where it is `late`, also before
    the first."""

    name: str
    acts: Sequence[Act]
    pause: float = 1.0
    late: bool = False


class Actor:
    """Plays a role. `ease` is how many times as long it pauses, but for one that is late: it acts seldom anyway."""

    def __init__(self, role: Role, seed: str, ease: float = 1.0) -> None:
        self.name = role.name
        self.done: collections.Counter[str] = collections.Counter()
        self.failure = ""
        self._dice = random.Random(f"{seed} {role.name}")
        self._acts = role.acts
        self._pause = role.pause if role.late else role.pause * ease
        self._late = role.late
        self._thread = threading.Thread(target=self._run, name=role.name, daemon=True)
        self._stopped = threading.Event()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def join(self) -> None:
        self._thread.join()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        if self._late:
            self._stopped.wait(self._dice.uniform(0, self._pause))
        while not self._stopped.is_set():
            act = self._dice.choice(self._acts)
            try:
                act(self._dice)
            except Exception:  # noqa: BLE001 - whatever it is, the run has found something
                self.failure = f"{self.name}: {act.__name__}: {traceback.format_exc()}"
                return
            self.done[act.__name__.lstrip("_")] += 1
            self._stopped.wait(self._dice.uniform(0, self._pause))


def play(actors: Sequence[Actor], seconds: float) -> str:
    """Let them act at the same time for so long, and wait until all have stopped; what failed, empty: nothing."""
    for actor in actors:
        actor.start()
    end = time.monotonic() + seconds
    while time.monotonic() < end and all(actor.alive for actor in actors):
        time.sleep(0.1)
    for actor in actors:
        actor.stop()
    for actor in actors:
        actor.join()
    return "\n".join(actor.failure for actor in actors if actor.failure)
