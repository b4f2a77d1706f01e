"""Showing how far something is: bars on a terminal, one a layer where layers are told apart; else a line a stage."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from udiroot.errors import printable


class Shown:
    """Progress on stderr, of a conversion here or at the service. Use as a context manager."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._layers: dict[str, TaskID] = {}
        self._done = 0
        self._started = time.monotonic()
        self._stage = ""
        if not quiet and sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                DownloadColumn(binary_units=True),
                TransferSpeedColumn(),
                console=Console(stderr=True),
                transient=True,
            )

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
        if error is None:
            self._end_stage()

    def stage(self, name: str, total: int) -> None:
        """A stage begins; `total` 0 means that its length is not known."""
        if name == self._stage:
            return
        self._end_stage()
        self._stage, self._done, self._started = name, 0, time.monotonic()
        if self._bar:
            for task in (self._task, *self._layers.values()):
                if task is not None:
                    self._bar.remove_task(task)
            self._layers = {}
            self._task = self._bar.add_task(name, total=total or None)

    def advance(self, count: int) -> None:
        """So many bytes more."""
        self.reached(self._done + count)

    def reached(self, done: int) -> None:
        """So many bytes of the stage in all."""
        self._done = done
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=done)

    def layer(self, name: str, done: int, total: int) -> None:
        """So many bytes of one layer in all."""
        if not self._bar:
            return
        new = name not in self._layers
        if new:
            self._layers[name] = self._bar.add_task(f"  {name}", total=total or None)
        self._bar.update(self._layers[name], completed=done, refresh=new)

    def note(self, text: str) -> None:
        """A line of its own."""
        if self._quiet:
            return
        if self._bar:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    def _end_stage(self) -> None:
        if self._stage and not self._quiet and not self._bar:
            seconds = time.monotonic() - self._started
            amount = f"{self._done / (1 << 20):.1f} MiB, " if self._done else ""
            self.note(f"{self._stage}: {amount}{seconds:.1f} s")
        self._stage = ""


def show(shown: Shown, event: dict[str, Any]) -> None:
    """What an event of the service says."""
    kind = event.get("event")
    if kind == "progress":
        shown.stage(printable(event.get("stage")), int(event.get("total") or 0))
        for name, done, total in event.get("layers") or []:
            shown.layer(printable(name), int(done), int(total))
        shown.reached(int(event.get("bytes") or 0))
    elif kind in ("queued", "storing"):
        shown.stage(kind, 0)
    elif kind == "again":
        shown.note(f"{printable(event.get('message'))}; asking again")
