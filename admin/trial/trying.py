"""A trial: an image is set up on one node without a job, perhaps a command run in it, and all taken down again.

Whatever ends it (an error, Ctrl-C, SIGTERM, the end of the terminal), the node is taken down before this process ends.
Where the process itself is killed, the state of the trial names the node, `udi-admin status` shows it, and the next
trial from this host, `udi-admin takedown` or a job that is set up on the node removes it.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from admin.trial.places import Ended, Place
from jobs.process import Interrupted, ignore_signals
from udi.accounts import Account
from udi.request import JobRequest
from udi.sentences import sentence
from udiroot.errors import TimedOut, UdiError, UsageError

T = TypeVar("T")
CHECK, SET_UP, RUN, TEAR_DOWN, CHECK_AGAIN = "check", "set up", "run", "tear down", "check again"


@dataclass(frozen=True)
class Step:
    """One step, how long it took in seconds, and what came of it."""

    step: str
    ok: bool
    seconds: float
    words: str


@dataclass
class Trial:
    """What became of it. `error` is what the exit code is of: the first one, or that of the teardown."""

    steps: list[Step] = field(default_factory=list)
    image_id: str = ""
    notice: str = ""
    ended: Ended | None = None
    error: UdiError | None = None

    def document(self) -> dict[str, Any]:
        """Keys of `udi-admin try --json`, which `udi-admin try --help` lists."""
        ended = self.ended
        return {
            "image_id": self.image_id,
            "notice": self.notice,
            "steps": [dataclasses.asdict(step) for step in self.steps],
            "exit_code": ended.exit_code if ended else None,
            "signal": ended.signal if ended else None,
            "output": ended.output.decode("utf-8", "replace") if ended else "",
            "error": sentence(self.error) if self.error else "",
        }


class Trying:
    """One trial at a place; each step is shown to `report` as it ends."""

    def __init__(self, place: Place, request: JobRequest, report: Callable[[Step], None]) -> None:
        self._place = place
        self._request = request
        self._report = report
        self._trial = Trial()

    def run(self, user: Account, command: tuple[str, ...], seconds: int) -> Trial:
        """All of it, to the end. Raises nothing but what no one can foresee."""
        place, job = self._place, self._request.job
        try:
            for swept in place.sweep():
                self._done(TEAR_DOWN, True, 0.0, f"what {swept} left, whose program was killed")
            self._step(CHECK, place.require_free, str)
            with place.held(job):
                try:
                    self._on_node(user, command, seconds)
                finally:
                    ignore_signals()
                    self._step(TEAR_DOWN, lambda: place.take_down(job), str)
            self._step(CHECK_AGAIN, self._nothing_left, str)
        except (UdiError, Interrupted) as error:
            ignore_signals()
            self._trial.error = self._trial.error or _as_error(error)
        return self._trial

    def _nothing_left(self) -> str:
        """A job that has come meanwhile is no fault of the trial."""
        try:
            return self._place.require_free()
        except UsageError as error:
            return error.message

    def _on_node(self, user: Account, command: tuple[str, ...], seconds: int) -> None:
        ready = self._step(
            SET_UP, lambda: self._place.set_up(self._request), lambda made: f"image {made.image_id[:12]}"
        )
        self._trial.image_id, self._trial.notice = ready.image_id, ready.notice
        if command:
            enter = self._place.enter
            self._trial.ended = self._step(
                RUN, lambda: enter(self._request.job, user, command, seconds), lambda ended: ended.words
            )

    def _step(self, name: str, do: Callable[[], T], words: Callable[[T], str]) -> T:
        began = time.monotonic()
        try:
            made = do()
        except (UdiError, Interrupted) as error:
            failed = _as_error(error)
            if name == TEAR_DOWN or not self._trial.error:  # a node that is not clean is worse than what came before
                self._trial.error = failed
            self._done(name, False, time.monotonic() - began, sentence(failed))
            raise
        self._done(name, True, time.monotonic() - began, words(made))
        return made

    def _done(self, name: str, ok: bool, seconds: float, words: str) -> None:
        step = Step(name, ok, round(seconds, 3), words)
        self._trial.steps.append(step)
        self._report(step)


def _as_error(error: BaseException) -> UdiError:
    return error if isinstance(error, UdiError) else TimedOut(str(error))
